//! Formats durations: in JSON as a number of seconds, in text as a number with a suitable unit.

use std::time::Duration;

use serde::Serializer;

/// For `#[serde(serialize_with)]`.
pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// For `#[serde(serialize_with)]`.
pub(crate) fn serialize_option<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// With three significant digits, such as `0.123 ms`, `4.56 ms`, `78.9 ms`, `1.20 s`.
pub(crate) fn show(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds >= 999.5 {
        format!("{:.2} s", milliseconds / 1e3)
    } else if milliseconds >= 99.95 {
        format!("{milliseconds:.0} ms")
    } else if milliseconds >= 9.995 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds >= 0.9995 {
        format!("{milliseconds:.2} ms")
    } else {
        format!("{milliseconds:.3} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let shown = |micros| show(Duration::from_micros(micros));
        assert_eq!(shown(0), "0.000 ms");
        assert_eq!(shown(123), "0.123 ms");
        assert_eq!(shown(4_561), "4.56 ms");
        assert_eq!(shown(78_900), "78.9 ms");
        assert_eq!(shown(456_000), "456 ms");
        assert_eq!(shown(999_600), "1.00 s");
        assert_eq!(shown(12_345_678), "12.35 s");
    }
}
