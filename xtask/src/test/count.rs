//! Adds up the result lines of Rust's test harness.

/// The number of tests by result.
#[derive(Default, PartialEq, Eq, Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

impl Count {
    /// Adds `test result: ok. 3 passed; 0 failed; 1 ignored; …`. Ignores other lines.
    pub(super) fn see(&mut self, line: &str) {
        let Some((_, numbers)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Adds another count.
    pub(super) fn add(&mut self, other: &Self) {
        let Self { passed, failed, ignored } = *other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
    }

    /// Returns true if no test ran.
    pub(super) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.ignored == 0
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} tests", self.passed + self.failed)?;
        if self.failed > 0 {
            write!(out, ", {} failed", self.failed)?;
        }
        if self.ignored > 0 {
            write!(out, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn the_harness_lines_add_up() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ] {
            count.see(line);
        }
        assert_eq!(count, Count { passed: 5, failed: 1, ignored: 1 });
    }
}
