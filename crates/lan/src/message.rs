//! The codec of the LAN protocol: each message is one JSON object.
//!
//! Input is not trusted: sizes are checked before anything is kept, and an invalid message gets an
//! error that names the field, its value and what is allowed.

use std::borrow::Cow;
use std::fmt;
use std::io;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub use crate::lan_id::{LanId, LanIdError};

/// The longest message, in bytes: the most that fits into one UDP datagram.
pub const MAX_MESSAGE_BYTES: usize = 65_507;

/// The longest `MID`, in bytes. Known harnesses use 16 to 40.
pub const MAX_MID_BYTES: usize = 1_024;

/// The longest `type`, in bytes. It is bounded because counters and reports use it as a name.
pub const MAX_KIND_BYTES: usize = 256;

/// One message, with the fields that every message has and its [`Content`].
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The sender.
    pub src: LanId,
    /// The receiver; [`LanId::BROADCAST`] means every other replica.
    pub dst: LanId,
    /// The leader, as far as the sender knows; [`LanId::BROADCAST`] if it knows none.
    pub leader: LanId,
    /// The content.
    pub content: Content,
    /// Whether the destination is spelled `dest` on the wire instead of `dst`.
    pub spelled_dest: bool,
}

/// The content of a message, by its `type`.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A client reads a key.
    Get {
        /// The request's name; the reply copies it.
        mid: String,
        /// The key to read.
        key: String,
    },
    /// A client writes a key.
    Put {
        /// The request's name; the reply copies it.
        mid: String,
        /// The key to write.
        key: String,
        /// Its new value.
        value: String,
    },
    /// A request was done.
    Ok {
        /// The request that this answers.
        mid: String,
        /// The value: the empty string for an absent key, `None` in the reply to a put.
        value: Option<String>,
    },
    /// A request was not done: the client should ask the replica in [`Envelope::leader`].
    Redirect {
        /// The request that this answers.
        mid: String,
    },
    /// A request was not done, or it is unknown whether it was: the client should try again.
    Fail {
        /// The request that this answers.
        mid: String,
        /// The reason, for people. This is an extension that readers may ignore.
        error: Option<String>,
    },
    /// A replica on UDP tells the harness its port.
    Hello,
    /// Any other message: replicas define their own.
    Other {
        /// The field `type`.
        kind: String,
        /// Every field but `src`, `dst` (or `dest`), `leader` and `type`.
        fields: Fields,
    },
}

/// The fields of a message between replicas: one JSON object, kept as text because a network only
/// forwards it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    json: Vec<u8>,
}

impl Fields {
    /// The fields of a struct. None of them may have the name of an envelope field.
    pub(crate) fn of(message: &impl Serialize) -> Fields {
        let mut json = Vec::with_capacity(TYPICAL_BYTES);
        write_json(&mut json, message);
        debug_assert!(json.starts_with(b"{"), "the fields of a message are an object");
        Fields { json }
    }

    /// The object as text, in ASCII.
    pub fn as_json(&self) -> &[u8] {
        &self.json
    }

    /// The object as a tree.
    pub fn to_map(&self) -> Map<String, Value> {
        serde_json::from_slice(&self.json).expect("it was written as a JSON object")
    }
}

/// Omits envelope fields, because a message must not contain a field twice.
impl From<Map<String, Value>> for Fields {
    fn from(mut fields: Map<String, Value>) -> Fields {
        fields.retain(|name, _| !is_envelope_field(name));
        Fields::of(&fields)
    }
}

impl Content {
    /// The `type` on the wire.
    pub fn kind(&self) -> &str {
        match self {
            Content::Get { .. } => "get",
            Content::Put { .. } => "put",
            Content::Ok { .. } => "ok",
            Content::Redirect { .. } => "redirect",
            Content::Fail { .. } => "fail",
            Content::Hello => "hello",
            Content::Other { kind, .. } => kind,
        }
    }

    /// Whether the protocol gives a meaning to messages of this `type`.
    pub(crate) fn is_of_the_protocol(kind: &str) -> bool {
        matches!(kind, "get" | "put" | "ok" | "redirect" | "fail" | "hello")
    }

    /// The `MID`, for requests and their replies.
    pub fn mid(&self) -> Option<&str> {
        match self {
            Content::Get { mid, .. }
            | Content::Put { mid, .. }
            | Content::Ok { mid, .. }
            | Content::Redirect { mid }
            | Content::Fail { mid, .. } => Some(mid),
            Content::Hello | Content::Other { .. } => None,
        }
    }
}

/// The fields that a network needs to route a message, see [`Envelope::peek`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// The sender.
    pub src: LanId,
    /// The receiver.
    pub dst: LanId,
    /// The leader, as far as the sender knows.
    pub leader: LanId,
    /// The `type`.
    pub kind: Cow<'a, str>,
    /// The `MID`, if the message has one and it is a string.
    pub mid: Option<Cow<'a, str>>,
    /// Whether the destination is spelled `dest` instead of `dst`.
    pub spelled_dest: bool,
}

/// Why bytes are not a message of the LAN protocol. Each error is displayed as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is longer than [`MAX_MESSAGE_BYTES`].
    #[error("the message has {length} bytes; at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It is not exactly one JSON object.
    #[error("not one JSON object: {reason} (the message is {message:?})")]
    NotAnObject {
        /// What the JSON reader says.
        reason: String,
        /// The message, shortened.
        message: String,
    },
    /// A required field is absent.
    #[error("the field `{field}` is missing; it must be {allowed}")]
    Missing {
        /// The field's name.
        field: &'static str,
        /// What it must be.
        allowed: &'static str,
    },
    /// A field has a value that is not allowed.
    #[error("the field `{field}` is {value}; it must be {allowed}")]
    Wrong {
        /// The field's name.
        field: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it must be.
        allowed: &'static str,
    },
    /// `dst` and `dest` are both present and name different destinations.
    #[error("the fields `dst` ({dst}) and `dest` ({dest}) differ; only one of them is needed")]
    TwoDestinations {
        /// The value of `dst`.
        dst: LanId,
        /// The value of `dest`.
        dest: LanId,
    },
}

impl MessageError {
    /// Whether the message was refused because of its size alone.
    pub fn is_too_long(&self) -> bool {
        matches!(self, MessageError::TooLong { .. })
    }
}

const AN_ID: &str = "a string of four hexadecimal digits";
const A_KIND: &str = "a string of 1 to 256 bytes";
const A_MID: &str = "a string of at most 1024 bytes";
const A_STRING: &str = "a string";

impl Envelope {
    /// Reads one message. White space around the object, such as a newline at its end, is allowed.
    ///
    /// Unknown fields of client messages, replies and `hello` are ignored.
    ///
    /// # Errors
    ///
    /// The input is longer than [`MAX_MESSAGE_BYTES`] or not exactly one JSON object, a field of the
    /// protocol is missing, invalid or given twice, or another field is nested more than 127 deep.
    pub fn parse(bytes: &[u8]) -> Result<Envelope, MessageError> {
        let raw = Raw::parse(bytes)?;
        let header = raw.header()?;
        let content = match &*header.kind {
            "get" => Content::Get { mid: raw.mid()?, key: raw.required("key")? },
            "put" => Content::Put { mid: raw.mid()?, key: raw.required("key")?, value: raw.required("value")? },
            "ok" => Content::Ok { mid: raw.mid()?, value: raw.optional("value")? },
            "redirect" => Content::Redirect { mid: raw.mid()? },
            // The reason is only for people, so a wrong type is ignored.
            "fail" => Content::Fail { mid: raw.mid()?, error: raw.optional("error").ok().flatten() },
            "hello" => Content::Hello,
            kind => Content::Other { kind: kind.to_owned(), fields: other_fields(bytes)? },
        };
        Ok(Envelope {
            src: header.src,
            dst: header.dst,
            leader: header.leader,
            content,
            spelled_dest: header.spelled_dest,
        })
    }

    /// Reads only the fields that a network needs for routing. Other fields must be valid JSON, but
    /// are skipped.
    ///
    /// # Errors
    ///
    /// The same as for [`Envelope::parse`], but only for the fields in [`Header`].
    pub fn peek(bytes: &[u8]) -> Result<Header<'_>, MessageError> {
        Raw::parse(bytes)?.header()
    }

    /// The header that [`Envelope::peek`] reads from the encoded form of this message.
    ///
    /// # Errors
    ///
    /// The encoded form is too long.
    pub fn header(&self, encoded: &[u8]) -> Result<Header<'_>, MessageError> {
        if encoded.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong { length: encoded.len() });
        }
        Ok(Header {
            src: self.src,
            dst: self.dst,
            leader: self.leader,
            kind: Cow::Borrowed(self.content.kind()),
            mid: self.content.mid().map(Cow::Borrowed),
            spelled_dest: self.spelled_dest,
        })
    }

    /// The message as one line of ASCII that ends with a newline.
    ///
    /// It may be longer than [`MAX_MESSAGE_BYTES`]: the sender must check that.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = Line::new();
        line.field("src", self.src.as_str());
        line.field(if self.spelled_dest { "dest" } else { "dst" }, self.dst.as_str());
        line.field("leader", self.leader.as_str());
        line.field("type", self.content.kind());
        if let Some(mid) = self.content.mid() {
            line.field("MID", mid);
        }
        match &self.content {
            Content::Get { key, .. } => line.field("key", key),
            Content::Put { key, value, .. } => {
                line.field("key", key);
                line.field("value", value);
            }
            Content::Ok { value: text, .. } => {
                if let Some(text) = text {
                    line.field("value", text);
                }
            }
            Content::Fail { error, .. } => {
                if let Some(error) = error {
                    line.field("error", error);
                }
            }
            Content::Redirect { .. } | Content::Hello => {}
            Content::Other { fields, .. } => line.fields(fields),
        }
        line.finish()
    }
}

fn is_envelope_field(name: &str) -> bool {
    matches!(name, "src" | "dst" | "dest" | "leader" | "type")
}

fn other_fields(bytes: &[u8]) -> Result<Fields, MessageError> {
    let fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| not_an_object(&error, bytes))?;
    Ok(fields.into())
}

/// Reads a struct from the fields of a message, without the envelope fields.
pub(crate) fn read_fields<T: DeserializeOwned>(message: &[u8]) -> serde_json::Result<T> {
    // Checking the whole text for UTF-8 once is faster than checking each string.
    let text = std::str::from_utf8(message).map_err(serde::de::Error::custom)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let fields = T::deserialize(own_fields::OwnFields(&mut reader))?;
    reader.end()?;
    Ok(fields)
}

/// The initial capacity for a message, which is enough for most.
const TYPICAL_BYTES: usize = 256;

fn write_json(bytes: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let mut serializer = Serializer::with_formatter(bytes, Ascii);
    value.serialize(&mut serializer).expect("text and JSON values are written to memory");
}

/// An object being written.
struct Line {
    bytes: Vec<u8>,
}

impl Line {
    fn new() -> Line {
        Line { bytes: Vec::with_capacity(TYPICAL_BYTES) }
    }

    fn field(&mut self, name: &str, value: &str) {
        self.bytes.push(if self.bytes.is_empty() { b'{' } else { b',' });
        write_json(&mut self.bytes, name);
        self.bytes.push(b':');
        write_json(&mut self.bytes, value);
    }

    /// Appends all fields of an object. At least one field must already be there.
    fn fields(&mut self, fields: &Fields) {
        let inside = &fields.json[1..fields.json.len() - 1];
        if !inside.is_empty() {
            self.bytes.push(b',');
            self.bytes.extend_from_slice(inside);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.extend(b"}\n");
        self.bytes
    }
}

/// Formats compact JSON and escapes all characters beyond ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// The fields of the protocol as raw JSON; each is parsed only when needed.
#[derive(Default)]
struct Raw<'a> {
    /// In the order of [`NAMES`].
    fields: [Option<&'a RawValue>; NAMES.len()],
    /// The names of fields that were given more than once.
    twice: Vec<&'static str>,
}

const NAMES: [&str; 9] = ["src", "dst", "dest", "leader", "type", "MID", "key", "value", "error"];

impl<'a> Raw<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Raw<'a>, MessageError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong { length: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| not_an_object(&error, bytes))?;
        let mut raw = Raw::default();
        raw.read(text).map_err(|error| not_an_object(&error, bytes))?;
        match raw.twice.first() {
            None => Ok(raw),
            Some(name) => Err(not_an_object(&format_args!("duplicate field `{name}`"), bytes)),
        }
    }

    /// Reads the fields of an object. After an error, it has the fields before the error.
    fn read(&mut self, text: &'a str) -> serde_json::Result<()> {
        let mut reader = serde_json::Deserializer::from_str(text);
        reader.deserialize_map(&mut *self)?;
        reader.end()
    }

    fn get(&self, name: &'static str) -> Option<Field<'a>> {
        let place = NAMES.iter().position(|known| *known == name)?;
        self.fields[place].filter(|value| value.get() != "null").map(Field::of)
    }

    fn header(&self) -> Result<Header<'a>, MessageError> {
        let (dst, spelled_dest) = self.destination()?;
        let kind = match self.get("type").ok_or(missing("type", A_KIND))? {
            Field::Text(kind) if (1..=MAX_KIND_BYTES).contains(&kind.len()) => kind,
            other => return Err(wrong("type", &other, A_KIND)),
        };
        let mid = match self.get("MID") {
            Some(Field::Text(mid)) if mid.len() <= MAX_MID_BYTES => Some(mid),
            Some(long @ Field::Text(_)) => return Err(wrong("MID", &long, A_MID)),
            // Messages between replicas may use the name for something else.
            Some(Field::Other(_)) | None => None,
        };
        Ok(Header { src: self.id("src")?, dst, leader: self.id("leader")?, kind, mid, spelled_dest })
    }

    /// The receiver, and whether the field is spelled `dest`.
    fn destination(&self) -> Result<(LanId, bool), MessageError> {
        let [dst, dest] = ["dst", "dest"].map(|name| self.get(name).map(|field| id(&field, name)).transpose());
        match (dst?, dest?) {
            (Some(dst), Some(dest)) if dst != dest => Err(MessageError::TwoDestinations { dst, dest }),
            (Some(dst), _) => Ok((dst, false)),
            (None, Some(dest)) => Ok((dest, true)),
            (None, None) => Err(missing("dst", AN_ID)),
        }
    }

    fn id(&self, name: &'static str) -> Result<LanId, MessageError> {
        id(&self.get(name).ok_or(missing(name, AN_ID))?, name)
    }

    fn mid(&self) -> Result<String, MessageError> {
        match self.get("MID") {
            Some(Field::Text(mid)) => Ok(mid.into_owned()),
            Some(other) => Err(wrong("MID", &other, A_MID)),
            None => Err(missing("MID", A_MID)),
        }
    }

    fn required(&self, name: &'static str) -> Result<String, MessageError> {
        self.optional(name)?.ok_or(missing(name, A_STRING))
    }

    fn optional(&self, name: &'static str) -> Result<Option<String>, MessageError> {
        match self.get(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text.into_owned())),
            Some(other) => Err(wrong(name, &other, A_STRING)),
        }
    }
}

impl<'a> Visitor<'a> for &mut Raw<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut fields: A) -> Result<(), A::Error> {
        // Names are taken raw as well, because a name that isn't Unicode is no error: it is skipped.
        while let Some((name, value)) = fields.next_entry::<&RawValue, &RawValue>()? {
            let Field::Text(name) = Field::of(name) else { continue };
            let Some(place) = NAMES.iter().position(|known| *known == name) else { continue };
            if self.fields[place].replace(value).is_some() {
                self.twice.push(NAMES[place]);
            }
        }
        Ok(())
    }
}

/// The parts of a request that are needed to answer it, even if the rest is unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The sender of the request.
    pub(crate) src: LanId,
    /// The receiver, which must answer.
    pub(crate) dst: LanId,
    /// Whether the destination is spelled `dest` in the request, and so in the answer.
    pub(crate) spelled_dest: bool,
    /// The request's name; the reply copies it.
    pub(crate) mid: String,
}

impl Asker {
    /// Looks for a `get` or a `put` and its sender in bytes that are not a valid message: text is not Unicode, a field
    /// is invalid or missing, the end is cut off, or something follows the object.
    pub(crate) fn of(bytes: &[u8]) -> Option<Asker> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return None;
        }
        let text = legible(bytes);
        let mut raw = Raw::default();
        // The fields before an error were read.
        let _ = raw.read(&text);
        if raw.twice.iter().any(|name| is_envelope_field(name) || *name == "MID") {
            return None;
        }
        let Some(Field::Text(kind)) = raw.get("type") else { return None };
        // A `MID` that can't be copied exactly would name another request.
        let mid = raw.mid().ok().filter(|mid| mid.len() <= MAX_MID_BYTES && !mid.contains(ILLEGIBLE))?;
        let (dst, spelled_dest) = raw.destination().ok()?;
        let src = raw.id("src").ok()?;
        matches!(&*kind, "get" | "put").then_some(Asker { src, dst, spelled_dest, mid })
    }
}

/// Replaces text that is not Unicode, and control characters that JSON does not allow.
const ILLEGIBLE: char = char::REPLACEMENT_CHARACTER;

fn legible(bytes: &[u8]) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let legible = |character: char| {
        in_string ^= character == '"' && !escaped;
        escaped = in_string && character == '\\' && !escaped;
        if in_string && character < ' ' { ILLEGIBLE } else { character }
    };
    String::from_utf8_lossy(bytes).chars().map(legible).collect()
}

/// The value of a field: text, or the description of another value for an error message.
enum Field<'a> {
    Text(Cow<'a, str>),
    Other(String),
}

impl<'a> Field<'a> {
    fn of(raw: &'a RawValue) -> Field<'a> {
        let json = raw.get();
        match json.as_bytes().first() {
            Some(b'[') => Field::Other("an array".to_owned()),
            Some(b'{') => Field::Other("an object".to_owned()),
            Some(b'"') => match serde_json::from_str::<own_fields::Text<'_>>(json) {
                Ok(own_fields::Text(text)) => Field::Text(text),
                Err(_) => Field::Other(format!("{}, which is not Unicode", shorten(json))),
            },
            _ => Field::Other(shorten(json)),
        }
    }
}

fn missing(field: &'static str, allowed: &'static str) -> MessageError {
    MessageError::Missing { field, allowed }
}

fn wrong(field: &'static str, value: &Field<'_>, allowed: &'static str) -> MessageError {
    let value = match value {
        Field::Text(text) => format!("{:?}", shorten(text)),
        Field::Other(what) => what.clone(),
    };
    MessageError::Wrong { field, value, allowed }
}

fn not_an_object(error: &impl fmt::Display, bytes: &[u8]) -> MessageError {
    MessageError::NotAnObject { reason: shorten(&error.to_string()), message: shorten(&String::from_utf8_lossy(bytes)) }
}

fn id(field: &Field<'_>, name: &'static str) -> Result<LanId, MessageError> {
    match field {
        Field::Text(text) => text.parse().map_err(|_| wrong(name, field, AN_ID)),
        Field::Other(_) => Err(wrong(name, field, AN_ID)),
    }
}

/// The first 60 characters of a text, followed by an ellipsis if there are more. It bounds untrusted
/// values in error messages.
pub fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

mod own_fields;
#[cfg(test)]
mod tests;
