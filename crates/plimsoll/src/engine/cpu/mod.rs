//! The CPU engine: all variants in one pass over the frozen weights.

mod decoding;
mod efficiency;
mod energy;
mod load;
mod score;
mod work;

pub use decoding::{CpuDecoder, Prefix, Sequence};
pub use efficiency::CpuBenchmark;
pub use energy::CpuProbe;
pub use load::{CpuEngine, CpuOptions, MAX_THREADS};
