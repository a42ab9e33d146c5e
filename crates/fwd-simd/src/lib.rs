#![doc = include_str!("../README.md")]
// The kernels are made of vector instructions and of pointers into packed operands; everything else here is safe code.
#![deny(unsafe_code)]

mod blocks;
mod buffer;
mod dense;
mod element;
mod kernel;
mod level;
mod lhs;
mod panels;
mod product;
mod split;
mod team;

pub use blocks::{Format, Rounded, Unfit, decode, products, rounded_products};
pub use dense::gemm;
pub use element::{Element, PANEL, Step};
pub use level::{Cpu, Level, LevelError, vectorize};
pub use lhs::Lhs;
pub use panels::{Panels, pack_panel};
pub use product::{multiply, multiply_panels};
pub use team::{fork, fork_chunks, fork_columns, members};
