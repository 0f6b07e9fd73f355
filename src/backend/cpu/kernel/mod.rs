//! The arithmetic. Each kernel is written once over [`super::simd::Simd`]; its safe entry checks
//! shapes, then trusts them. Threads split output rows, heads or batch rows only.
#![allow(unsafe_code, reason = "threads write disjoint parts of one buffer; wide loads")]
#![allow(clippy::needless_range_loop, reason = "lanes, rows and blocks are known by their index")]

pub mod act;
pub mod acts;
pub mod attend;
pub mod bank;
pub mod buffer;
pub mod by_row;
pub mod drive;
pub mod float;
mod hadamard;
pub mod in_order;
pub mod lane_types;
pub mod lanes;
pub mod job;
pub mod linear;
pub mod linear_float;
pub mod local;
pub mod math;
pub mod matmul;
pub mod matmul_32;
pub mod norm;
mod ordered;
mod ordered_grid;
pub mod pack;
pub mod parts;
pub mod quantise;
pub mod registers;
pub mod registers_grid;
pub mod rope;
pub mod route;
pub mod stripe;
pub mod unpack;
pub mod unpack_grid;
