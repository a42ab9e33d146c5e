//! The kernel files, as text that a compiler takes without any other file.

/// A file of `cuda/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum File {
    Activation,
    Adamw,
    CrossEntropy,
    Embedding,
    Gram,
    Norm,
    Projection,
    Selection,
    Softmax,
    Solver,
    /// Kernels with a fault each, for the tests of the emulator.
    Faults,
}

impl File {
    /// All but the emulator's own test kernels.
    pub const ALL: [Self; 10] = [
        Self::Activation,
        Self::Adamw,
        Self::CrossEntropy,
        Self::Embedding,
        Self::Gram,
        Self::Norm,
        Self::Projection,
        Self::Selection,
        Self::Softmax,
        Self::Solver,
    ];

    /// Its name without `.cu`.
    pub fn name(self) -> &'static str {
        self.parts().0
    }

    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Activation => ("activation", include_str!("../cuda/activation.cu")),
            Self::Adamw => ("adamw", include_str!("../cuda/adamw.cu")),
            Self::CrossEntropy => ("cross_entropy", include_str!("../cuda/cross_entropy.cu")),
            Self::Embedding => ("embedding", include_str!("../cuda/embedding.cu")),
            Self::Gram => ("gram", include_str!("../cuda/gram.cu")),
            Self::Norm => ("norm", include_str!("../cuda/norm.cu")),
            Self::Projection => ("projection", include_str!("../cuda/projection.cu")),
            Self::Selection => ("selection", include_str!("../cuda/selection.cu")),
            Self::Softmax => ("softmax", include_str!("../cuda/softmax.cu")),
            Self::Solver => ("solver", include_str!("../cuda/solver.cu")),
            Self::Faults => ("faults", include_str!("../emulation/faults.cu")),
        }
    }
}

const COMMON: &str = include_str!("../cuda/common.cuh");
const LOWRANK: &str = include_str!("../cuda/lowrank.cuh");

/// The source of a file with what it includes in its place.
///
/// # Examples
/// ```
/// let text = fwd_kernels::source(fwd_kernels::File::Norm);
/// assert!(text.contains("__global__") && !text.contains("#include \"common.cuh\""));
/// ```
pub fn source(file: File) -> String {
    let mut text = file.parts().1.to_owned();
    for (name, header) in [("common", COMMON), ("lowrank", LOWRANK)] {
        let header = header.replacen("#pragma once", "", 1);
        text = text.replacen(&format!("#include \"{name}.cuh\"\n"), &header, 1);
    }
    text
}
