//! Array maps as memory: reads and writes need no system call per element.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
};

use aya::Pod;
use pomguard_common::{
    flow::{Bucket, ports::FlowPort, prints::Prints},
    serve::Served,
};

/// A type that consists of atomic words only, so that other writers may change the bytes while a reference
/// exists.
///
/// # Safety
/// Implement this trait only for such types, for which any bytes are a valid value.
pub(super) unsafe trait Words {}

// SAFETY: atomic words, and arrays of them.
unsafe impl Words for Bucket {}
// SAFETY: atomic bytes.
unsafe impl Words for Prints {}
// SAFETY: two atomic words.
unsafe impl Words for Served {}
// SAFETY: two atomic words.
unsafe impl Words for FlowPort {}

/// An array map of `T`, mapped into this process. The programs write the map at the same time, so every access
/// copies an element.
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
        // SAFETY: the kernel chooses the address of the new mapping, and the map is at least as long.
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

    /// Returns the number of elements.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// Returns a copy of an element; `None` beyond the end.
    pub(crate) fn get(&self, index: usize) -> Option<T> {
        if index >= self.length {
            return None;
        }
        // SAFETY: inside the mapping, aligned since pages and elements are; any bytes are a `T`.
        Some(unsafe { self.start.add(index).read_volatile() })
    }

    /// Returns the first byte of an element; `None` beyond the end.
    pub(crate) fn first_byte(&self, index: usize) -> Option<u8> {
        if index >= self.length {
            return None;
        }
        // SAFETY: inside the mapping; see `get`.
        Some(unsafe { self.start.add(index).cast::<u8>().read_volatile() })
    }

    /// Returns a reference to an element in the map; `None` beyond the end, or if the mapping is read-only.
    pub(super) fn shared<W: Words>(&self, index: usize) -> Option<&W> {
        const { assert!(size_of::<W>() == size_of::<T>() && align_of::<W>() <= 64) };
        let place = self.start.as_ptr().wrapping_add(index).cast::<W>();
        if index >= self.length || !self.writable || !place.is_aligned() {
            return None;
        }
        // SAFETY: inside a mapping that lives as long as the reference, aligned (checked above), and of a type
        // that other writers may change meanwhile.
        Some(unsafe { &*place })
    }

    /// Replaces an element. Returns false beyond the end, or if the mapping is read-only.
    pub(super) fn set(&mut self, index: usize, value: T) -> bool {
        if index >= self.length || !self.writable {
            return false;
        }
        // SAFETY: inside a writable mapping; see `get`.
        unsafe { self.start.add(index).write_volatile(value) };
        true
    }

    /// Returns copies of all elements.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        (0..self.length).filter_map(|index| self.get(index))
    }
}

impl<T: Pod> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping, and nothing borrows from the mapping. If `munmap` fails, the
        // memory stays mapped, which does no harm.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
