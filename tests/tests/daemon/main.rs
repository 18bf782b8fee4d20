//! A real daemon between real machines: what it does from its first start to `detach`.
//!
//! Tests whose name begins with `basic_` run on other kernels in emulation too, where a start alone
//! takes some twenty seconds; the others say there that they were skipped.

mod death;
mod life;
mod reload;
