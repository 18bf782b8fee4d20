//! Finds the valid name nearest to a misspelled one.

/// Returns the candidate that was probably meant. Returns `None` if no candidate is near enough.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = squeeze(written);
    candidates
        .into_iter()
        .map(|candidate| (distance(&plain, &squeeze(candidate)), candidate))
        .min()
        .filter(|&(far, candidate)| far <= 1 + candidate.chars().count() / 4)
        .map(|(_, candidate)| candidate)
}

/// Drops case, blanks and punctuation, the most frequent mistakes.
fn squeeze(name: &str) -> Vec<char> {
    // A name in a file may be as long as the file; a suggestion needs only the beginning.
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).take(64).collect()
}

/// Counts the letters to insert, remove or replace (Levenshtein distance).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.iter().enumerate() {
        let mut corner = index;
        let mut left = index + 1;
        for (other, cell) in to.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            left = (corner + usize::from(letter != other)).min(above + 1).min(left + 1);
            corner = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_pen_finds_the_name_that_was_meant() {
        let names = ["Agent Manager", "Agent Desktop", "Zookeeper", "addresses"];
        assert_eq!(nearest("agent manger", names), Some("Agent Manager"));
        assert_eq!(nearest("ZooKeper", names), Some("Zookeeper"));
        assert_eq!(nearest("adresses", names), Some("addresses"));
        assert_eq!(nearest("Oracle", names), None);
    }
}
