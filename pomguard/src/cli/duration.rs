//! Durations as written on the command line: `90`, `60s`, `10m`, `2h`, `1d`.

/// Parses a duration and returns seconds.
///
/// # Errors
/// The message says how to write a duration.
pub(super) fn seconds(written: &str) -> Result<u32, String> {
    let digits = written.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match &written[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write it as 60s, 10m, 2h or 1d".to_owned()),
    };
    let number: u32 = digits.parse().map_err(|_| "write it as 60s, 10m, 2h or 1d".to_owned())?;
    match number.checked_mul(scale) {
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
            [("90", 90), ("60s", 60), ("10m", 600), ("10min", 600), ("2h", 7_200), ("1d", 86_400)]
        {
            assert_eq!(seconds(written), Ok(read), "{written}");
        }
        for wrong in ["", "s", "0", "-1", "1.5h", "2 h", "2w", "1h30m", "99999999999", "4294967295d", "２h"]
        {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
