//! The kernel files, as text that a compiler takes without any other file.

/// Everything that goes by file comes from the one list below.
macro_rules! files {
    ($($variant:ident $name:literal,)+) => {
        /// A file of `cuda/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum File {
            $($variant,)+
            /// Kernels with a fault each, for the tests of the emulator.
            Faults,
        }

        impl File {
            /// All but the emulator's own test kernels.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            fn parts(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$variant => ($name, include_str!(concat!("../cuda/", $name, ".cu"))),)+
                    Self::Faults => ("faults", include_str!("../emulation/faults.cu")),
                }
            }

            /// What build.rs made of it; empty if there was no compiler.
            #[cfg(feature = "cuda")]
            pub(crate) fn fat_binary(self) -> &'static [u8] {
                match self {
                    $(Self::$variant => include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")),)+
                    Self::Faults => &[],
                }
            }
        }
    };
}

files! {
    Activation "activation",
    Adamw "adamw",
    CrossEntropy "cross_entropy",
    Embedding "embedding",
    Gram "gram",
    Norm "norm",
    Projection "projection",
    Rotary "rotary",
    Selection "selection",
    Softmax "softmax",
    Solver "solver",
}

impl File {
    /// Its name without `.cu`.
    pub fn name(self) -> &'static str {
        self.parts().0
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
