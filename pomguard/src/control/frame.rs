//! Lines from a stream of bytes, independent of the boundaries of the reads.

/// The longest request in bytes, without the line end. A reason and a list of addresses are far shorter.
pub const REQUEST: usize = 16 << 10;

/// A line that is longer than the limit. The following lines of that stream can no longer be separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {limit} bytes")]
pub struct TooLong {
    /// The limit.
    pub limit: usize,
}

/// Bytes of a stream that were received and not yet returned as lines.
#[derive(Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    /// The number of bytes that were searched for a line end, so that no byte is searched twice.
    searched: usize,
    limit: usize,
}

impl Lines {
    /// Returns an empty buffer for lines of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), searched: 0, limit }
    }

    /// Appends received bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next complete line without the line end; `None` if the line is not complete yet.
    ///
    /// # Errors
    /// If the line is longer than the limit, complete or not.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let fresh = self.bytes.get(self.searched..).unwrap_or_default();
        let end = fresh.iter().position(|&byte| byte == b'\n').map(|at| self.searched + at);
        let length = end.unwrap_or(self.bytes.len());
        if length > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return Ok(None);
        };
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        line.pop();
        self.searched = 0;
        Ok(Some(line))
    }

    /// Returns the number of bytes that wait for the rest of a line.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Ok(Some(line)) = lines.next_line() {
            found.push(line);
        }
        found
    }

    proptest! {
        /// CP-02: partial and pipelined frames.
        #[test]
        fn lines_come_out_as_they_went_in_however_the_stream_was_cut(
            written in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("no end", |&b| b != b'\n'), 0..40), 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..40),
        ) {
            let stream: Vec<u8> = written.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
            let mut lines = Lines::new(40);
            let mut found = Vec::new();
            let mut rest = stream.as_slice();
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                lines.feed(now);
                found.extend(all(&mut lines));
                rest = later;
            }
            prop_assert_eq!(found, written);
            prop_assert_eq!(lines.waiting(), 0);
        }

        /// CP-02: for any input, the buffer keeps no more than one line and one reading.
        #[test]
        fn frame_of_any_bytes_is_lines_or_too_long(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..40),
        ) {
            let mut lines = Lines::new(50);
            for chunk in chunks {
                lines.feed(&chunk);
                loop {
                    match lines.next_line() {
                        Ok(Some(line)) => prop_assert!(line.len() <= 50 && !line.contains(&b'\n')),
                        Ok(None) => break,
                        Err(error) => {
                            prop_assert_eq!(error.limit, 50);
                            return Ok(());
                        }
                    }
                }
                prop_assert!(lines.waiting() <= 50);
            }
        }
    }

    #[test]
    fn line_of_the_limit_passes_and_one_byte_more_does_not() {
        let mut lines = Lines::new(3);
        lines.feed(b"abc\nabcd\n");
        assert_eq!(lines.next_line(), Ok(Some(b"abc".to_vec())));
        assert_eq!(lines.next_line(), Err(TooLong { limit: 3 }));
        let mut endless = Lines::new(3);
        endless.feed(b"abcd");
        assert_eq!(endless.next_line(), Err(TooLong { limit: 3 }), "its end is not waited for");
    }
}
