//! HTTP/1.1 and web sockets by hand, so that nothing is hidden.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// An answer as a whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

/// Sends a request, and waits for the end of the answer.
pub(crate) async fn ask(url: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut stream = Stream::open(url, method, path, headers, Some(body)).await;
    let mut text = String::new();
    while let Some(piece) = stream.piece().await {
        text.push_str(&piece);
    }
    Reply { status: stream.status(), head: stream.head, body: text }
}

/// Posts JSON.
pub(crate) async fn post(url: &str, path: &str, body: &str) -> Reply {
    ask(url, "POST", path, &[], body).await
}

/// Posts JSON, which must be accepted. Returns the body.
pub(crate) async fn good(url: &str, path: &str, body: &str) -> String {
    let reply = post(url, path, body).await;
    assert_eq!(reply.status, 200, "{path} {body}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{reply:?}");
    reply.body
}

/// The text after a key, up to the next comma or brace, without quotes.
pub(crate) fn value<'a>(json: &'a str, key: &str) -> &'a str {
    let rest = json.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}")).1;
    rest.split([',', '}', ']']).next().expect("there is a first part").trim_matches('"')
}

/// An answer that is read while it goes on.
pub(crate) struct Stream {
    socket: TcpStream,
    received: Vec<u8>,
    head: String,
    text: String,
}

impl Stream {
    /// Sends a request; without a body, it is to be sent with [`Stream::send`]. Waits for the head of the answer if the
    /// request is whole.
    pub(crate) async fn open(
        url: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Stream {
        let socket = TcpStream::connect(url.trim_start_matches("http://")).await.expect("it listens");
        let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: localhost\r\n" };
        let mut text = format!("{method} {path} HTTP/1.1\r\n{host}");
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        match body {
            Some(body) => text.push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())),
            None if method == "GET" => text.push_str("\r\n"),
            None => text.push_str("Transfer-Encoding: chunked\r\n\r\n"),
        }
        let mut stream = Stream { socket, received: Vec::new(), head: String::new(), text: String::new() };
        // The server may have answered and gone before it has read all.
        let _ = stream.socket.write_all(text.as_bytes()).await;
        if body.is_some() || method == "GET" {
            stream.read_head().await;
        }
        stream
    }

    /// Sends a part of the body.
    pub(crate) async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        // As in `open`.
        let _ = self.socket.write_all(chunk.as_bytes()).await;
    }

    pub(crate) async fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            assert!(self.receive().await, "the connection ends: {:?}", String::from_utf8_lossy(&self.received));
        };
        let rest = self.received.split_off(end + 4);
        let head = std::mem::replace(&mut self.received, rest);
        self.head = String::from_utf8(head).expect("it is text").to_ascii_lowercase();
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    async fn receive(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut buffer)).await.expect("in time");
        let count = read.unwrap_or(0);
        self.received.extend_from_slice(&buffer[..count]);
        count > 0
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            if !self.receive().await {
                return None;
            }
        }
        let rest = self.received.split_off(count);
        Some(std::mem::replace(&mut self.received, rest))
    }

    /// The next piece of the body; none at its end.
    async fn piece(&mut self) -> Option<String> {
        if !self.head.contains("transfer-encoding: chunked") {
            let whole = self.head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let whole: usize = whole.and_then(|length| length.parse().ok()).unwrap_or(0);
            self.head = self.head.replace("content-length: ", "read-length: ");
            let bytes = self.bytes(whole).await?;
            return (whole > 0).then(|| String::from_utf8(bytes).expect("it is text"));
        }
        let mut size = String::new();
        while !size.ends_with("\r\n") {
            size.push(char::from(self.bytes(1).await?[0]));
        }
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        let bytes = self.bytes(size + 2).await?;
        (size > 0).then(|| String::from_utf8(bytes[..size].to_vec()).expect("it is text"))
    }

    /// The next line of the body; none at its end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return Some(line);
            }
            let piece = self.piece().await?;
            self.text.push_str(&piece);
        }
    }
}

/// A web socket.
pub(crate) struct Socket(Stream);

impl Socket {
    /// Asks for an upgrade.
    pub(crate) async fn open(url: &str, path: &str, headers: &[(&str, &str)]) -> Result<Socket, u16> {
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let stream = Stream::open(url, "GET", path, &[&upgrade, headers].concat(), None).await;
        if stream.status() != 101 {
            return Err(stream.status());
        }
        // The example of RFC 6455, section 1.3.
        assert!(stream.head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{}", stream.head);
        Ok(Socket(stream))
    }

    pub(crate) fn head(&self) -> &str {
        &self.0.head
    }

    /// Sends a text frame.
    pub(crate) async fn send(&mut self, text: &str) {
        let length = u16::try_from(text.len()).expect("it is short").to_be_bytes();
        // With a mask of zeros, the text stays what it is.
        let frame = [&[0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0], text.as_bytes()].concat();
        self.0.socket.write_all(&frame).await.expect("sent");
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.0.socket.write_all(bytes).await.expect("sent");
    }

    /// The next text frame; none if the server closes.
    pub(crate) async fn text(&mut self) -> Option<String> {
        let head = self.0.bytes(2).await?;
        let length = match head[1] {
            126 => {
                let bytes = self.0.bytes(2).await?;
                usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
            }
            127 => {
                let bytes = self.0.bytes(8).await?;
                usize::try_from(u64::from_be_bytes(bytes.try_into().expect("eight bytes"))).expect("it is short")
            }
            short => usize::from(short),
        };
        let bytes = self.0.bytes(length).await?;
        (head[0] == 0x81).then(|| String::from_utf8(bytes).expect("it is text"))
    }
}
