//! Requests to the kernel by netlink: each on a socket of its own, each read to its end.

use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::Socket;

/// A message whose contents no library reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// Type of the message, in its header.
    pub(super) kind: u16,
    /// Bytes behind the header.
    pub(super) body: Vec<u8>,
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, body: &[u8]) -> io::Result<Self> {
        Ok(Self { kind: header.message_type, body: body.to_vec() })
    }
}

/// The number of attempts to read a list that changes meanwhile.
const ATTEMPTS: usize = 8;

/// Sends a request and returns the answers. With `NLM_F_DUMP` in `flags`, the kernel lists all objects; otherwise the
/// kernel sends one answer. A list that the kernel marks as interrupted by a change may lack objects and is read
/// again; if it changes all the time, the last attempt counts.
///
/// # Errors
/// The kernel's error, also if a list ends with an error.
pub(super) fn ask<M>(protocol: isize, request: &M, flags: u16) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    let mut attempt = 1;
    loop {
        let Exchange { answers, end, interrupted } =
            exchange(&Socket::new(protocol)?, request.clone(), flags)?;
        match end {
            Some(error) if error.code.is_some() => return Err(error.to_io()),
            _ if interrupted && attempt < ATTEMPTS => attempt += 1,
            _ => return Ok(answers),
        }
    }
}

/// The answers to a request.
pub(super) struct Exchange<M> {
    /// The answers.
    pub(super) answers: Vec<M>,
    /// The acknowledgement, if the exchange ended with one.
    pub(super) end: Option<ErrorMessage>,
    /// True if the list changed while the kernel wrote the answers.
    interrupted: bool,
}

/// Sends a request and reads the exchange to its end.
///
/// # Errors
/// If the socket fails, the kernel sends bytes that are no message, or a list ends with an error.
pub(super) fn exchange<M>(socket: &Socket, request: M, flags: u16) -> io::Result<Exchange<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut exchange = Exchange { answers: Vec::new(), end: None, interrupted: false };
    loop {
        let (received, _) = socket.recv_from_full()?;
        match read(&received, &mut exchange)? {
            Progress::Ended(end) => return Ok(Exchange { end, ..exchange }),
            Progress::Open if flags & NLM_F_DUMP == 0 => return Ok(exchange),
            Progress::Open => {}
        }
    }
}

/// The state of an exchange after some answers.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// A list may have further answers.
    Open,
    /// No answer follows; the acknowledgement, if there is one.
    Ended(Option<ErrorMessage>),
}

/// Reads one buffer of answers.
fn read<M: NetlinkDeserializable>(bytes: &[u8], exchange: &mut Exchange<M>) -> io::Result<Progress> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let answer = NetlinkMessage::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let length = (answer.header.length as usize).next_multiple_of(4).min(rest.len()).max(1);
        exchange.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => exchange.answers.push(inner),
            NetlinkPayload::Error(error) => return Ok(Progress::Ended(Some(error))),
            // The kernel lists what it can, and reports a failure at the end of the list.
            NetlinkPayload::Done(end) if end.code < 0 => return Err(io::Error::from_raw_os_error(-end.code)),
            NetlinkPayload::Done(_) => return Ok(Progress::Ended(None)),
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(Progress::Open)
}

/// Returns the value of the first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(bytes).flatten().find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(netlink_packet_core::NLA_HEADER_SIZE..length)
}

/// Appends an attribute, padded to four bytes.
pub(super) fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = netlink_packet_core::NLA_HEADER_SIZE + value.len();
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let inner = Raw { kind, body: body.to_vec() };
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(inner));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn nothing() -> Exchange<Raw> {
        Exchange { answers: Vec::new(), end: None, interrupted: false }
    }

    #[test]
    fn a_list_is_read_over_several_buffers_to_its_end() {
        let mut exchange = nothing();
        let two = [message(20, &[1, 2, 3, 4]), message(20, &[5, 6, 7, 8])].concat();
        assert_eq!(read(&two, &mut exchange).unwrap(), Progress::Open);
        let last = [message(20, &[9; 4]), message(3, &0_i32.to_ne_bytes())].concat();
        assert_eq!(read(&last, &mut exchange).unwrap(), Progress::Ended(None));
        assert!(!exchange.interrupted);
        assert_eq!(exchange.answers.iter().map(|answer| answer.body[0]).collect::<Vec<_>>(), [1, 5, 9]);
    }

    #[test]
    fn list_that_changed_meanwhile_is_noticed() {
        let mut torn = message(20, &[1, 2, 3, 4]);
        torn[6..8].copy_from_slice(&NLM_F_DUMP_INTR.to_ne_bytes());
        let mut exchange = nothing();
        read(&torn, &mut exchange).unwrap();
        assert!(exchange.interrupted);
    }

    #[test]
    fn a_list_that_ends_with_an_error_is_an_error() {
        let failed = message(3, &(-libc::ENOENT).to_ne_bytes());
        let error = read(&failed, &mut nothing()).map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn an_acknowledgement_ends_an_exchange_with_its_code() {
        let body = [&(-libc::EPERM).to_ne_bytes()[..], &[0; 16]].concat();
        let Progress::Ended(Some(end)) = read(&message(2, &body), &mut nothing()).unwrap() else {
            panic!("no acknowledgement");
        };
        assert_eq!(end.raw_code(), -libc::EPERM);
        assert!(read(&message(20, &[0; 8])[..20], &mut nothing()).is_err(), "cut short");
    }

    #[test]
    fn attributes_are_found_behind_others() {
        let mut bytes = Vec::new();
        append(&mut bytes, 1, &[9, 9, 9]);
        append(&mut bytes, 3, &[1, 2, 3, 4]);
        assert_eq!(attribute(&bytes, 1), Some(&[9, 9, 9][..]));
        assert_eq!(attribute(&bytes, 3), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attribute(&bytes, 2), None);
        assert_eq!(attribute(&bytes[..9], 3), None, "cut short");
    }

    #[test]
    fn the_kernel_answers_one_request_and_one_list() {
        // `struct ifinfomsg`: the loopback interface has index 1 in every namespace.
        let mut body = vec![0; 16];
        body[4] = 1;
        let get_link = |body: &[u8], flags| ask(NETLINK_ROUTE, &Raw { kind: 18, body: body.to_vec() }, flags);
        assert_eq!(get_link(&body, 0).unwrap().len(), 1);
        assert!(!get_link(&[0; 16], NLM_F_DUMP).unwrap().is_empty());
        body[4..8].fill(0x7f);
        assert_eq!(get_link(&body, 0).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
