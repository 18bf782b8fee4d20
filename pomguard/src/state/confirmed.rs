//! The last confirmed policy, compiled, on disk. A start uses this policy if the configuration files are
//! refused.
//!
//! One file: a header with the version of the format, the length and the SHA-256 of the rest; then facts about
//! the host and the attachment, the labels of the counters, the overrides of the failsafe rows, and the lines
//! of the image. Any difference from the written bytes makes the whole file unusable.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use pomguard_common::{
    ABI_VERSION, Direction,
    control::Override,
    counter::{LABEL_ID, LABEL_PORTS, LABEL_SYSTEM, RowLabel},
    image::{HEAD, Line, head},
    limits,
    text::FixedText,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::identity::Identity;
use crate::{
    compile::{Image, ImageFacts, Parts},
    history::replace,
    policy::Mode,
};

/// Name of the file in the state folder.
const NAME: &str = "confirmed.image";
/// First bytes of the file.
const MAGIC: [u8; 8] = *b"POMGUARD";
/// Version of the format.
const VERSION: u32 = 1;
/// A layout of the maps whose images differ from this layout's only in the layout number.
const FORMER_LAYOUT: u32 = 4;
/// Magic, version, layout of the maps, length of the rest, digest of the rest.
const HEADER: usize = 8 + 4 + 4 + 8 + 32;
/// Size limit in bytes, above any file that was ever written: the largest image with all labels is 10 MiB.
const LONGEST: u64 = 16 << 20;
/// Bytes of a label.
const LABEL: usize = LABEL_ID + 2 * LABEL_SYSTEM + LABEL_PORTS + 4;

/// The error if the file cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The bytes of the file differ from the bytes that were written.
    #[error("{} is ignored: {problem}; the next policy that is put in force replaces it", path.display())]
    Broken {
        /// The path of the file.
        path: PathBuf,
        /// A description of the damage.
        problem: String,
    },
}

/// Facts that are saved with the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The host's name in the site file.
    pub host: String,
    /// The id of the matrix.
    pub matrix: String,
    /// Seconds since 1970 when the policy was put in force.
    pub since: u64,
    /// Text of the settings file.
    pub settings: String,
    /// The machine that saved the policy; `None` in a file of an earlier version.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// The number of the change in the history; `None` in a file of an earlier version.
    #[serde(default)]
    pub change: Option<u64>,
}

/// A confirmed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Facts that are saved with the image.
    pub about: About,
    /// The labels of the rows, with their counter slots.
    pub labels: Vec<(u16, RowLabel)>,
    /// The overrides of the failsafe rows.
    pub overrides: Vec<Override>,
    /// The lines of the image.
    pub lines: Vec<Line>,
}

/// Replaces the file atomically.
///
/// # Errors
/// If the disk cannot be written; the old file stays.
pub fn save(folder: &Path, confirmed: &Confirmed) -> Result<(), StateError> {
    let fail = |what, path: PathBuf| move |source| StateError::File { what, path, source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail("make", folder.to_owned()))?;
    let path = folder.join(NAME);
    replace(&path, &confirmed.to_bytes()).map_err(fail("write", path))
}

/// Reads the file. Returns `None` if the file does not exist.
///
/// # Errors
/// [`StateError::Broken`] if the bytes differ from those that were written.
pub fn load(folder: &Path) -> Result<Option<Confirmed>, StateError> {
    let path = folder.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::File { what: "open", path, source }),
    };
    let mut bytes = Vec::new();
    if let Err(source) = file.take(LONGEST + 1).read_to_end(&mut bytes) {
        return Err(StateError::File { what: "read", path, source });
    }
    if bytes.len() as u64 > LONGEST {
        return Err(StateError::Broken {
            path,
            problem: "it is longer than any that was written".to_owned(),
        });
    }
    Confirmed::from_bytes(&bytes)
        .map(Some)
        .map_err(|problem| StateError::Broken { path, problem: problem.to_owned() })
}

impl Confirmed {
    /// Returns an image in the form in which it is saved.
    #[must_use]
    pub fn new(image: &Image, since: u64, settings: String) -> Self {
        let Parts { host, matrix, labels, failsafe, lines } = image.parts().clone();
        Self {
            about: About { host, matrix, since, settings, identity: None, change: None },
            labels,
            overrides: failsafe,
            lines,
        }
    }

    /// Returns the saved parts of an image.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            host: self.about.host.clone(),
            matrix: self.about.matrix.clone(),
            labels: self.labels.clone(),
            failsafe: self.overrides.clone(),
            lines: self.lines.clone(),
        }
    }

    /// Returns the mode of a direction.
    #[must_use]
    pub fn mode(&self, direction: Direction) -> Mode {
        self.lines.get(HEAD as usize).map_or(Mode::Enforce, |head| Mode::in_head(head, direction))
    }

    /// Returns the bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(self.lines.len() * 64 + 4_096);
        // A struct of strings and numbers always becomes JSON.
        let about = serde_json::to_vec(&self.about).unwrap_or_default();
        put_length(&mut rest, about.len());
        rest.extend(about);
        put_length(&mut rest, self.labels.len());
        for (slot, label) in &self.labels {
            rest.extend(slot.to_le_bytes());
            rest.extend(label_bytes(label));
        }
        put_length(&mut rest, self.overrides.len());
        rest.extend(self.overrides.iter().flat_map(override_bytes));
        put_length(&mut rest, self.lines.len());
        rest.extend(self.lines.iter().flat_map(|line| line.0).flat_map(u32::to_le_bytes));
        let mut bytes = Vec::with_capacity(HEADER + rest.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(ABI_VERSION.to_le_bytes());
        bytes.extend((rest.len() as u64).to_le_bytes());
        bytes.extend(Sha256::digest(&rest));
        bytes.extend(rest);
        bytes
    }

    /// Reads the bytes that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// A description of the damage.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let short = "it ends too early";
        let mut header = Cursor(bytes);
        if header.take::<8>().ok_or(short)? != MAGIC {
            return Err("it is not a file of pomguard's");
        }
        if header.number().ok_or(short)? != VERSION {
            return Err("another version of pomguard wrote it");
        }
        let layout = header.number().ok_or(short)?;
        if layout != ABI_VERSION && layout != FORMER_LAYOUT {
            return Err("it is for another layout of the maps");
        }
        let length = u64::from_le_bytes(header.take::<8>().ok_or(short)?);
        let digest = header.take::<32>().ok_or(short)?;
        if header.0.len() as u64 != length {
            return Err("its length is not the one that it states");
        }
        if Sha256::digest(header.0)[..] != digest {
            return Err("its checksum does not match");
        }
        Self::of_rest(header.0, layout).ok_or("what is in it does not fit together")
    }

    /// Reads the bytes after the header; `None` if they are no policy.
    fn of_rest(rest: &[u8], layout: u32) -> Option<Self> {
        let mut cursor = Cursor(rest);
        let length = cursor.length(rest.len())?;
        let about = serde_json::from_slice(cursor.bytes(length)?).ok()?;
        let mut labels = Vec::new();
        for _ in 0..cursor.length(limits::ROW_SLOTS)? {
            let slot = u16::from_le_bytes(cursor.take()?);
            if usize::from(slot) >= limits::ROW_SLOTS {
                return None;
            }
            labels.push((slot, read_label(cursor.bytes(LABEL)?)?));
        }
        let mut overrides = Vec::new();
        for _ in 0..cursor.length(limits::OVERRIDES)? {
            overrides.push(read_override(cursor.bytes(size_of::<Override>())?)?);
        }
        let mut lines = Vec::new();
        for _ in 0..cursor.length(limits::IMAGE_LINES)? {
            let mut line = Line::ZERO;
            for word in &mut line.0 {
                *word = cursor.number()?;
            }
            lines.push(line);
        }
        if lines.get(HEAD as usize)?.word(head::ABI) != layout {
            return None;
        }
        // The image has a separate digest, from the time of the compilation.
        let whole = ImageFacts::adopt(&mut lines, layout)? && cursor.0.is_empty();
        whole.then_some(Self { about, labels, overrides, lines })
    }
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend((length as u32).to_le_bytes());
}

fn label_bytes(label: &RowLabel) -> Vec<u8> {
    let RowLabel { id, source, destination, ports, direction, live, failsafe, reserved } = label;
    [&id[..], source, destination, ports, &[*direction, *live, *failsafe, *reserved]].concat()
}

fn read_label(bytes: &[u8]) -> Option<RowLabel> {
    let mut cursor = Cursor(bytes);
    Some(RowLabel {
        id: FixedText::from_bytes(cursor.take()?),
        source: FixedText::from_bytes(cursor.take()?),
        destination: FixedText::from_bytes(cursor.take()?),
        ports: FixedText::from_bytes(cursor.take()?),
        direction: cursor.take::<1>()?[0],
        live: cursor.take::<1>()?[0],
        failsafe: cursor.take::<1>()?[0],
        reserved: cursor.take::<1>()?[0],
    })
}

fn override_bytes(override_rule: &Override) -> Vec<u8> {
    let Override { peer, mask, ports, client_ports, expires, row, protocol, marks, slots, reserved } =
        override_rule;
    let words = peer.iter().chain(mask).chain([ports, client_ports, expires]);
    let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(row.to_le_bytes());
    bytes.extend([*protocol, *marks]);
    bytes.extend(slots.to_le_bytes());
    bytes.extend(reserved.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

fn read_override(bytes: &[u8]) -> Option<Override> {
    let mut cursor = Cursor(bytes);
    Some(Override {
        peer: cursor.numbers()?,
        mask: cursor.numbers()?,
        ports: cursor.number()?,
        client_ports: cursor.number()?,
        expires: cursor.number()?,
        row: u16::from_le_bytes(cursor.take()?),
        protocol: cursor.take::<1>()?[0],
        marks: cursor.take::<1>()?[0],
        slots: cursor.number()?,
        reserved: cursor.numbers()?,
    })
}

/// Takes bytes from the front; `None` if fewer bytes are left.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u32; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Some(numbers)
    }

    /// Returns a number of elements that follow; `None` if the number is above `most`.
    fn length(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|&length| length <= most)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pomguard_common::{
        flow::State,
        image::{AGES, RECORD, SECTIONS},
    };

    use super::*;
    use crate::compile::record;

    /// Returns the smallest image with a record.
    fn lines() -> Vec<Line> {
        let mut lines = vec![Line::ZERO; SECTIONS as usize];
        lines[HEAD as usize].0[head::ABI as usize] = ABI_VERSION;
        lines[AGES as usize].0[State::Established as usize] = 7;
        lines[RECORD as usize].0[3] = SECTIONS;
        let digest = record::digest(&lines);
        for (word, bytes) in lines[RECORD as usize + 1].0.iter_mut().zip(digest.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        lines
    }

    #[test]
    fn image_of_the_former_layout_is_read_as_one_of_this_layout() {
        let now = confirmed();
        let mut lines = now.lines.clone();
        lines[HEAD as usize].0[head::ABI as usize] = FORMER_LAYOUT;
        let digest = record::digest(&lines);
        for (word, bytes) in lines[RECORD as usize + 1].0.iter_mut().zip(digest.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        let mut former = Confirmed { lines, ..now.clone() }.to_bytes();
        assert!(Confirmed::from_bytes(&former).is_err(), "the layout of the file is not that of its image");
        former[12..16].copy_from_slice(&FORMER_LAYOUT.to_le_bytes());
        assert_eq!(Confirmed::from_bytes(&former), Ok(now));
        former[12..16].copy_from_slice(&(FORMER_LAYOUT - 1).to_le_bytes());
        assert!(Confirmed::from_bytes(&former).is_err(), "an older layout");
    }

    fn confirmed() -> Confirmed {
        let label = RowLabel {
            id: FixedText::from_bytes([b'r'; LABEL_ID]),
            source: FixedText::from_bytes([1; LABEL_SYSTEM]),
            destination: FixedText::from_bytes([2; LABEL_SYSTEM]),
            ports: FixedText::from_bytes([3; LABEL_PORTS]),
            direction: 1,
            live: 1,
            failsafe: 0,
            reserved: 0,
        };
        let override_rule = Override { peer: [1, 2, 3, 4], mask: [5; 4], row: 6, marks: 4, ..Override::FREE };
        Confirmed {
            about: About {
                host: "server".to_owned(),
                matrix: "pom-4.0".to_owned(),
                since: 1_795_000_000,
                settings: "site = \"site.toml\"\n".to_owned(),
                identity: Some(Identity {
                    machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
                    product_uuid: None,
                    macs: ["02:00:00:00:00:01".to_owned()].into(),
                }),
                change: Some(7),
            },
            labels: vec![(3, label), (8_191, label)],
            overrides: vec![override_rule],
            lines: lines(),
        }
    }

    #[test]
    fn saved_policy_loads_and_a_second_save_replaces_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        assert_eq!(load(&folder).unwrap(), None);
        let mut wanted = confirmed();
        save(&folder, &wanted).unwrap();
        assert_eq!(load(&folder).unwrap(), Some(wanted.clone()));
        wanted.about.host = "another".to_owned();
        save(&folder, &wanted).unwrap();
        assert_eq!(load(&folder).unwrap(), Some(wanted));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn file_without_an_identity_loads_as_one_of_an_unknown_machine() {
        let now = confirmed();
        let before = Confirmed { about: About { identity: None, change: None, ..now.about.clone() }, ..now };
        let about = serde_json::to_vec(&before.about).unwrap();
        let without = b",\"identity\":null";
        let at = about.windows(without.len()).position(|bytes| bytes == without).unwrap();
        let mut bytes = before.to_bytes();
        let former = HEADER + 4 + at;
        bytes.drain(former..former + without.len());
        let length = (about.len() - without.len()) as u32;
        bytes[HEADER..HEADER + 4].copy_from_slice(&length.to_le_bytes());
        let rest = (bytes.len() - HEADER) as u64;
        bytes[16..24].copy_from_slice(&rest.to_le_bytes());
        let digest = Sha256::digest(&bytes[HEADER..]);
        bytes[24..HEADER].copy_from_slice(&digest);
        assert_eq!(Confirmed::from_bytes(&bytes), Ok(before));
    }

    #[test]
    fn lc_22_no_truncation_is_taken_for_a_policy() {
        let bytes = confirmed().to_bytes();
        for length in 0..bytes.len() {
            assert!(Confirmed::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(Confirmed::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err(), "a byte too many");
    }

    #[test]
    fn lc_22_no_bit_flip_is_taken_for_a_policy() {
        let bytes = confirmed().to_bytes();
        let bits = bytes.len() * 8;
        // An odd step reaches every bit of the header and at least 10,000 places of the file.
        let flips = (0..HEADER * 8).chain((0..bits).step_by((bits / 10_000).max(1)));
        let mut count = 0;
        for bit in flips {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(Confirmed::from_bytes(&broken).is_err(), "bit {bit}");
            count += 1;
        }
        assert!(count >= 10_000, "{count}");
    }

    #[test]
    fn lc_22_nonsense_with_the_right_checksum_is_refused() {
        let good = confirmed();
        let mut other_image = good.clone();
        other_image.lines[12].0[0] ^= 1;
        let mut short_image = good.clone();
        short_image.lines.pop();
        let mut slot = good.clone();
        slot.labels[0].0 = 8_192;
        for broken in [other_image, short_image, slot] {
            assert_eq!(Confirmed::from_bytes(&broken.to_bytes()), Err("what is in it does not fit together"));
        }
    }

    #[test]
    fn lc_22_newer_empty_and_huge_files_are_named_and_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let refused = |what: &str| {
            let message = load(folder.path()).unwrap_err().to_string();
            assert!(message.contains(what) && message.contains(NAME), "{message}");
        };
        let mut newer = confirmed().to_bytes();
        newer[8] += 1;
        fs::write(&path, newer).unwrap();
        refused("another version");
        fs::write(&path, []).unwrap();
        refused("too early");
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        refused("longer than any");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("read");
    }
}
