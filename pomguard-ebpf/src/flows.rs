//! The flow table and the fragment table.

use core::marker::PhantomData;

use pomguard_common::{
    flow::{Bucket, Candidates, Entered, Key, State, Store, ports::FlowPort, prints::Prints},
    image::{Barrier, CLOCK_WORD},
    limits,
};

use crate::{barrier::hide, calls, clock, maps, scratch::Memory};
use aya_ebpf::Global;

/// Keys the hash of the flow table: random, set at load time.
#[unsafe(no_mangle)]
pub(crate) static FLOW_SECRET: Global<u64> = Global::new(0);

/// The maps of a table of flows.
pub(crate) trait Home {
    const BUCKETS: usize;
    fn bucket(bucket: u32) -> Option<&'static Bucket>;
    fn port(port: u16) -> Option<&'static FlowPort>;
    fn prints(bucket: u32) -> Option<&'static Prints>;
    /// Calls [`pomguard_common::flow::locate`] with the key in a scratch value.
    fn locate(index: u32) -> u32;
    /// Calls [`pomguard_common::flow::place`] with the key in a scratch value.
    fn place(index: u32, what: u32, row: u64) -> u32;
}

/// The methods of a [`Store`] that are those of its [`Home`], whatever the path of the packet.
macro_rules! at_home {
    ($home:ident) => {
        #[inline(always)]
        fn bucket(&self, bucket: u32) -> Option<&Bucket> {
            $home::bucket(bucket)
        }

        #[inline(always)]
        fn mask(&self) -> u32 {
            $home::BUCKETS as u32 - 1
        }

        #[inline(always)]
        fn secret(&self) -> u64 {
            $crate::flows::FLOW_SECRET.load()
        }

        #[inline(always)]
        fn port(&self, port: u16) -> Option<&FlowPort> {
            $home::port(port)
        }

        #[inline(always)]
        fn prints(&self, bucket: u32) -> Option<&Prints> {
            $home::prints(bucket)
        }
    };
}
pub(crate) use at_home;

/// The flow table.
pub(crate) enum Flows {}

impl Home for Flows {
    const BUCKETS: usize = limits::FLOW_BUCKETS;

    #[inline(always)]
    fn bucket(bucket: u32) -> Option<&'static Bucket> {
        maps::FLOWS.get(bucket)
    }

    #[inline(always)]
    fn port(port: u16) -> Option<&'static FlowPort> {
        maps::FLOW_PORTS.get(port.into())
    }

    #[inline(always)]
    fn prints(bucket: u32) -> Option<&'static Prints> {
        maps::FLOW_PRINTS.get(bucket)
    }

    #[inline(always)]
    fn locate(index: u32) -> u32 {
        calls::pom_locate_flow(index)
    }

    #[inline(always)]
    fn place(index: u32, what: u32, row: u64) -> u32 {
        calls::pom_place_flow(index, what, row)
    }
}

/// The fragment table.
pub(crate) enum Fragments {}

impl Home for Fragments {
    const BUCKETS: usize = limits::FRAGMENT_BUCKETS;

    #[inline(always)]
    fn bucket(bucket: u32) -> Option<&'static Bucket> {
        maps::FRAGMENTS.get(bucket)
    }

    #[inline(always)]
    fn port(_: u16) -> Option<&'static FlowPort> {
        None
    }

    #[inline(always)]
    fn prints(_: u32) -> Option<&'static Prints> {
        None
    }

    #[inline(always)]
    fn locate(index: u32) -> u32 {
        calls::pom_locate_fragment(index)
    }

    #[inline(always)]
    fn place(index: u32, what: u32, row: u64) -> u32 {
        calls::pom_place_fragment(index, what, row)
    }
}

/// A table of flows, with the scratch value that has the ages.
pub(crate) struct Table<P: Home> {
    memory: Memory,
    home: PhantomData<P>,
}

impl<P: Home> Table<P> {
    #[inline(always)]
    pub(crate) const fn new(memory: Memory) -> Self {
        Self { memory, home: PhantomData }
    }

    /// Keeps a key for a function of [`calls`], and returns the number of the scratch value.
    #[inline(always)]
    fn keep(&self, key: Key) -> u32 {
        self.memory.keep_key(key.of_self_test(self.memory.self_test()));
        self.memory.index()
    }
}

impl<P: Home> Barrier for Table<P> {
    #[inline(always)]
    fn barrier(&self, value: u64) -> u64 {
        self.memory.barrier(value)
    }
}

impl<P: Home> Store for Table<P> {
    at_home!(P);

    #[inline(always)]
    fn age(&self, state: State) -> u32 {
        self.memory.age_word(state as u32)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        clock::now().wrapping_add(self.memory.age_word(CLOCK_WORD))
    }

    #[inline(always)]
    fn candidates(&self) -> Option<&Candidates> {
        Some(self.memory.candidates())
    }

    #[inline(always)]
    fn locate(&self, key: Key) -> u32 {
        // Hidden: the compiler knows more about the result than the verifier.
        hide(P::locate(self.keep(key)) as usize) as u32
    }

    #[inline(always)]
    fn place(&self, key: Key, what: u32, row: u64) -> Entered {
        let entered = hide(P::place(self.keep(key), what, row) as usize);
        Entered::from_number(entered as u64).unwrap_or(Entered::Full)
    }
}
