//! Reads scenario files strictly: every field must be known and every value in its range.

use std::time::Duration;

use bowline_lan::message::shorten;
use serde_json::{Map, Value};

use super::{
    Benchmarks, DEFAULT_MAX_PACKETS, Event, EventKind, MAX_EVENTS, MAX_REQUESTS, MAX_SCENARIO_BYTES, REPLICAS,
    Scenario, ScenarioError, Thresholds,
};

const FIELDS: &[&str] = &[
    "lifetime",
    "replicas",
    "requests",
    "mix",
    "start_wait",
    "end_wait",
    "drops",
    "seed",
    "max_packets",
    "events",
    "tests",
];
const BENCHMARKS: &[&str] = &["total_msgs", "failures", "duplicates", "median_latency"];

/// A day: long enough for any run, and short enough that sums of times can't overflow.
const MAX_LIFETIME: f64 = 86_400.0;
const MAX_WAIT: f64 = 3_600.0;

pub(super) fn scenario(name: &str, bytes: &[u8]) -> Result<Scenario, ScenarioError> {
    if bytes.len() > MAX_SCENARIO_BYTES {
        return Err(ScenarioError::TooLong { name: name.to_owned(), length: bytes.len() });
    }
    let not_an_object = |reason: String| ScenarioError::NotAnObject { name: name.to_owned(), reason };
    let fields = match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => {
            return Err(not_an_object(format!("it is {}", show(&other))));
        }
        Err(error) => return Err(not_an_object(shorten(&error.to_string()))),
    };
    let object = Object { name, path: String::new(), fields: &fields };
    object.only(FIELDS)?;
    let lifetime = object.number("lifetime", None, 5.0..=MAX_LIFETIME)?;
    Ok(Scenario {
        name: name.to_owned(),
        lifetime: Duration::from_secs_f64(lifetime),
        replicas: object.integer("replicas", None, REPLICAS)? as usize,
        requests: object.integer("requests", None, 1..=MAX_REQUESTS)?,
        mix: object.number("mix", Some(0.8), 0.0..=1.0)?,
        start_wait: object.seconds("start_wait", 5.0)?,
        end_wait: object.seconds("end_wait", 2.0)?,
        drops: object.number("drops", Some(0.0), 0.0..=1.0)?,
        seed: match object.given("seed") {
            None => None,
            Some(_) => Some(object.integer("seed", None, 0..=u64::MAX)?),
        },
        max_packets: object.integer("max_packets", Some(DEFAULT_MAX_PACKETS), 1..=1_000_000_000)?,
        events: events(&object, lifetime)?,
        benchmarks: benchmarks(&object)?,
    })
}

fn events(scenario: &Object<'_>, lifetime: f64) -> Result<Vec<Event>, ScenarioError> {
    let allowed = format!("an array of at most {MAX_EVENTS} events");
    let values = match scenario.given("events") {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() <= MAX_EVENTS => values,
        Some(other) => return Err(scenario.wrong("events", other, &allowed)),
    };
    let mut events = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let event = scenario.within(&format!("events[{index}]"), value)?;
        event.only(&["type", "time"])?;
        let names = EventKind::ALL.map(EventKind::name);
        let allowed = format!("one of {}", names.join(", "));
        let kind = event.given("type").ok_or_else(|| event.missing("type", &allowed))?;
        let kind = EventKind::ALL
            .into_iter()
            .find(|known| kind.as_str() == Some(known.name()))
            .ok_or_else(|| event.wrong("type", kind, &allowed))?;
        let time = event.number("time", None, 0.0..=lifetime)?;
        events.push(Event { kind, time: Duration::from_secs_f64(time) });
    }
    // A stable sort: events at the same time happen in the order of the file.
    events.sort_by_key(|event| event.time);
    Ok(events)
}

fn benchmarks(scenario: &Object<'_>) -> Result<Benchmarks, ScenarioError> {
    let Some(tests) = scenario.given("tests") else {
        return Ok(Benchmarks::default());
    };
    let tests = scenario.within("tests", tests)?;
    tests.only(&["benchmarks"])?;
    let Some(benchmarks) = tests.given("benchmarks") else {
        return Ok(Benchmarks::default());
    };
    let benchmarks = tests.within("benchmarks", benchmarks)?;
    benchmarks.only(BENCHMARKS)?;
    Ok(Benchmarks {
        total_msgs: benchmarks.thresholds("total_msgs")?,
        failures: benchmarks.thresholds("failures")?,
        duplicates: benchmarks.thresholds("duplicates")?,
        median_latency: benchmarks.thresholds("median_latency")?,
    })
}

/// An object in the file, and its path.
struct Object<'a> {
    name: &'a str,
    /// The path to this object, with a dot at its end; empty for the whole file.
    path: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn within(&self, field: &str, value: &'a Value) -> Result<Object<'a>, ScenarioError> {
        match value {
            Value::Object(fields) => Ok(Object { name: self.name, path: format!("{}{field}.", self.path), fields }),
            other => Err(self.wrong(field, other, "an object")),
        }
    }

    /// The value of a field; `None` if it is absent or `null`.
    fn given(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn only(&self, allowed: &[&str]) -> Result<(), ScenarioError> {
        match self.fields.keys().find(|field| !allowed.contains(&field.as_str())) {
            None => Ok(()),
            Some(field) => Err(ScenarioError::UnknownField {
                name: self.name.to_owned(),
                field: format!("{}{}", self.path, shorten(field)),
                allowed: allowed.join(", "),
            }),
        }
    }

    fn missing(&self, field: &str, allowed: &str) -> ScenarioError {
        ScenarioError::Missing {
            name: self.name.to_owned(),
            field: format!("{}{field}", self.path),
            allowed: allowed.to_owned(),
        }
    }

    fn wrong(&self, field: &str, value: &Value, allowed: &str) -> ScenarioError {
        ScenarioError::Wrong {
            name: self.name.to_owned(),
            field: format!("{}{field}", self.path),
            value: show(value),
            allowed: allowed.to_owned(),
        }
    }

    fn number(
        &self,
        field: &str,
        default: Option<f64>,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<f64, ScenarioError> {
        let allowed = format!("a number from {} to {}", range.start(), range.end());
        match (self.given(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(field, &allowed)),
            (Some(value), _) => {
                value.as_f64().filter(|number| range.contains(number)).ok_or_else(|| self.wrong(field, value, &allowed))
            }
        }
    }

    fn seconds(&self, field: &str, default: f64) -> Result<Duration, ScenarioError> {
        self.number(field, Some(default), 0.0..=MAX_WAIT).map(Duration::from_secs_f64)
    }

    fn integer(
        &self,
        field: &str,
        default: Option<u64>,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, ScenarioError> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        match (self.given(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(field, &allowed)),
            (Some(value), _) => {
                value.as_u64().filter(|number| range.contains(number)).ok_or_else(|| self.wrong(field, value, &allowed))
            }
        }
    }

    fn thresholds(&self, field: &str) -> Result<Option<Thresholds>, ScenarioError> {
        let Some(value) = self.given(field) else {
            return Ok(None);
        };
        let numbers: Option<Vec<f64>> = value
            .as_array()
            .filter(|items| items.len() == 3)
            .and_then(|items| items.iter().map(Value::as_f64).collect());
        match numbers.as_deref() {
            Some(&[top, full, partial]) if 0.0 <= top && top < full && full < partial => {
                Ok(Some(Thresholds { top, full, partial }))
            }
            _ => Err(self.wrong(field, value, "an array of three rising numbers from 0 up")),
        }
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(items) if items.len() > 8 => format!("an array of {}", items.len()),
        other => shorten(&other.to_string()),
    }
}
