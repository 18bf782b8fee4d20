//! Digests as text.

pub use base16ct::lower::encode_string as hex;
