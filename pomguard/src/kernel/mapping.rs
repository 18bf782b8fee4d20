//! Array maps as memory: read and filled without one system call per element.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
};

use aya::Pod;
use pomguard_common::{
    flow::{Bucket, ports::FlowPort},
    serve::Served,
};

/// A type all of whose bytes are atomic words, so that others may write while a reference to it lives.
///
/// # Safety
/// Only such types, and any bytes are one.
pub(super) unsafe trait Words {}

// SAFETY: atomic words, and arrays of them.
unsafe impl Words for Bucket {}
// SAFETY: two atomic words.
unsafe impl Words for Served {}
// SAFETY: two atomic words.
unsafe impl Words for FlowPort {}

/// An array map of `T`, mapped into this process. The programs write it at the same time, so every
/// access copies an element.
pub(crate) struct Mapping<T: Pod> {
    start: NonNull<T>,
    length: usize,
    writable: bool,
    element: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway; elements are copied in and out whole.
unsafe impl<T: Pod + Send> Send for Mapping<T> {}

impl<T: Pod> Mapping<T> {
    /// Maps the first `length` elements of an array map with `BPF_F_MMAPABLE` (Linux 5.5).
    pub(super) fn new(map: BorrowedFd<'_>, length: usize, writable: bool) -> io::Result<Self> {
        // The kernel lays elements out at multiples of eight bytes.
        const { assert!(size_of::<T>().is_multiple_of(8) && size_of::<T>() > 0) };
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping chosen by the kernel, of a map that is at least as long.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length * size_of::<T>(),
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, length, writable, element: PhantomData })
    }

    /// Number of elements.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// A copy of an element; none beyond the end.
    pub(crate) fn get(&self, index: usize) -> Option<T> {
        if index >= self.length {
            return None;
        }
        // SAFETY: inside the mapping, aligned since pages and elements are; any bytes are a `T`.
        Some(unsafe { self.start.add(index).read_volatile() })
    }

    /// The first byte of an element; none beyond the end.
    pub(crate) fn first_byte(&self, index: usize) -> Option<u8> {
        if index >= self.length {
            return None;
        }
        // SAFETY: inside the mapping; see `get`.
        Some(unsafe { self.start.add(index).cast::<u8>().read_volatile() })
    }

    /// An element as it stands in the map; none beyond the end, or when the mapping is for reading.
    pub(super) fn shared<W: Words>(&self, index: usize) -> Option<&W> {
        const { assert!(size_of::<W>() == size_of::<T>() && align_of::<W>() <= 64) };
        let place = self.start.as_ptr().wrapping_add(index).cast::<W>();
        if index >= self.length || !self.writable || !place.is_aligned() {
            return None;
        }
        // SAFETY: inside a mapping that lives as long as the reference, aligned (just seen), and of a
        // type that may be written meanwhile.
        Some(unsafe { &*place })
    }

    /// Replaces an element; false beyond the end, or when the mapping is for reading.
    pub(super) fn set(&mut self, index: usize, value: T) -> bool {
        if index >= self.length || !self.writable {
            return false;
        }
        // SAFETY: inside a writable mapping; see `get`.
        unsafe { self.start.add(index).write_volatile(value) };
        true
    }

    /// Copies of all elements.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        (0..self.length).filter_map(|index| self.get(index))
    }
}

impl<T: Pod> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it. A failure leaves it mapped, no worse.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
