//! Multi-head attention, alone and as a whole sublayer of a transformer.
//!
//! | file | what |
//! |---|---|
//! | `dot_product.rs` | [`attention()`]: attention over given queries, keys and values |
//! | `weights.rs`, `sublayer.rs` | [`AttentionSublayer`]: norm, projections, attention and residual sum |
//! | `cache.rs` | [`KvCache`]: the keys and values of generation |
//! | `fused.rs` | the kernel that computes a frozen sublayer as one operation on the CPU |
//! | `step.rs` | the same for a step of generation, which adds to the cache |

mod cache;
mod dot_product;
mod fused;
mod step;
mod sublayer;
mod weights;

pub use cache::KvCache;
pub use dot_product::attention;
pub use sublayer::AttentionSublayer;
pub use weights::AttentionWeights;
