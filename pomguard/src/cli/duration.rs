//! Durations as written on the command line: `60s`, `10m`, `2h`, `1d`.

use crate::render::quantity;

/// A day, in seconds.
pub(super) const DAY: u32 = 86_400;

/// Parses a duration of at most `LONGEST` seconds and returns seconds.
///
/// # Errors
/// The message says how to write a duration, or names the longest one.
pub(super) fn up_to<const LONGEST: u32>(written: &str) -> Result<u32, String> {
    match seconds(written)? {
        seconds if seconds > LONGEST => Err(format!("at most {}", quantity::duration(LONGEST.into()))),
        seconds => Ok(seconds),
    }
}

/// Parses a duration and returns seconds. A number needs a unit: who types `--for 15` means minutes, and would
/// get seconds.
///
/// # Errors
/// The message says how to write a duration.
pub(super) fn seconds(written: &str) -> Result<u32, String> {
    let form = || "write it as 60s, 10m, 2h or 1d".to_owned();
    let digits = written.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(form());
    }
    let scale = match &written[digits.len()..] {
        "" => {
            return Err(format!(
                "the unit is missing: write it as {digits}s, {digits}m, {digits}h or {digits}d"
            ));
        }
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(form()),
    };
    // Digits alone are no number only if they are too many.
    match digits.parse::<u32>().ok().and_then(|number| number.checked_mul(scale)) {
        Some(0) => Err("no time at all".to_owned()),
        Some(seconds) => Ok(seconds),
        None => Err("longer than a hundred years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        for (written, read) in
            [("90s", 90), ("60s", 60), ("10m", 600), ("10min", 600), ("2h", 7_200), ("1d", 86_400)]
        {
            assert_eq!(seconds(written), Ok(read), "{written}");
        }
        for wrong in [
            "",
            "90",
            "s",
            "0",
            "-1",
            "+5s",
            "1.5h",
            "2 h",
            "2w",
            "1h30m",
            "99999999999",
            "4294967295d",
            "２h",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        for long in ["4294967295d", "4294967296s", "99999999999d"] {
            assert_eq!(seconds(long).unwrap_err(), "longer than a hundred years", "{long}");
        }
    }

    #[test]
    fn number_without_unit_and_time_beyond_the_longest_say_what_to_write() {
        assert_eq!(seconds("15").unwrap_err(), "the unit is missing: write it as 15s, 15m, 15h or 15d");
        assert_eq!(up_to::<DAY>("24h"), Ok(DAY));
        assert_eq!(up_to::<DAY>("25h").unwrap_err(), "at most 1 d");
    }
}
