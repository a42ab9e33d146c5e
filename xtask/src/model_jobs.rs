//! What `cargo xtask bench models` runs: models, batches, peers, and what is aimed at.

use clap::ValueEnum;

/// A part of the table, with one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// instructblip-flan-t5-xl in bf16: opening and a step.
    FlanT5Xl,
    /// llava-1.5-7b in q4: a step.
    Llava,
    /// SmolLM2-135M in f32: step, prefill, generation.
    Smollm2,
    /// flan-t5-base in f32: a step.
    FlanT5Base,
    /// SmolLM2-135M in q4: generation beside llama.cpp.
    Smollm2Q4,
    /// SmolLM2-135M in q8: generation beside llama.cpp.
    Smollm2Q8,
}

impl Part {
    /// The kind of random checkpoint and the type of its weights.
    pub(crate) fn checkpoint(self) -> (&'static str, &'static str) {
        match self {
            Self::FlanT5Xl => ("instructblip-flan-t5-xl", "bf16"),
            Self::Llava => ("llava-1.5-7b", "q4"),
            Self::Smollm2 => ("smollm2-135m", "f32"),
            Self::FlanT5Base => ("flan-t5-base", "f32"),
            Self::Smollm2Q4 => ("smollm2-135m", "q4"),
            Self::Smollm2Q8 => ("smollm2-135m", "q8"),
        }
    }
}

/// Another program that does the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// transformers, on the checkpoint or with random weights made in place.
    Torch {
        dtype: &'static str,
        attention: &'static str,
        is_random: bool,
    },
    /// transformers with PyTorch's dynamically quantised linear maps, which have no backward.
    TorchInt8,
    LlamaCpp,
}

impl Peer {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Torch { dtype, attention, .. } => format!("transformers {dtype} {attention}"),
            Self::TorchInt8 => "transformers int8".into(),
            Self::LlamaCpp => "llama.cpp".into(),
        }
    }

    pub(crate) fn is_f32(self) -> bool {
        matches!(self, Self::Torch { dtype: "f32", .. })
    }
}

/// What a figure of ours must not exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Must {
    /// This figure.
    AtMost(f64),
    /// So many times the figure of the row of ours with this name.
    Row(f64, &'static str),
    /// With ours in f32, so many times the least of the peers in f32.
    F32(f64),
    /// With the least of ours, so many times the least of all peers.
    Fastest(f64),
}

/// What is aimed at in a row; `peak` is the most memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) row: &'static str,
    pub(crate) must: Must,
}

/// Processes of each program on one batch.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) part: Part,
    pub(crate) what: &'static str,
    /// How the weights are stored.
    pub(crate) dtype: &'static str,
    /// What frozen products are computed in: one program of ours each.
    pub(crate) computes: &'static [&'static str],
    pub(crate) rows: &'static str,
    pub(crate) batch: usize,
    pub(crate) input_len: usize,
    pub(crate) label_len: usize,
    pub(crate) peers: &'static [Peer],
    pub(crate) goals: &'static [Goal],
}

impl Job {
    /// The name in the record of our program.
    pub(crate) fn ours(&self, compute: &str) -> String {
        format!("{}, ours {compute}", self.what)
    }

    /// The name in the record of a peer.
    pub(crate) fn peer(&self, peer: Peer) -> String {
        format!("{}, {}", self.what, peer.name())
    }
}

const fn torch(dtype: &'static str, attention: &'static str) -> Peer {
    Peer::Torch { dtype, attention, is_random: false }
}

const fn goal(row: &'static str, must: Must) -> Goal {
    Goal { row, must }
}

const GIB: f64 = 1024.0;
const BOTH: &[&str] = &["f32", "bf16"];
const TORCH: &[Peer] =
    &[torch("f32", "sdpa"), torch("f32", "eager"), torch("bf16", "sdpa"), torch("bf16", "eager")];
const STEP: &[Goal] = &[
    goal("step", Must::F32(0.7)),
    goal("step", Must::Fastest(0.8)),
    goal("peak", Must::F32(0.3)),
    goal("peak", Must::Fastest(0.5)),
];
const DECODING: &[Goal] =
    &[goal("generate", Must::F32(0.5)), goal("peak", Must::F32(0.3)), goal("peak", Must::Fastest(0.5))];

pub(crate) const JOBS: [Job; 9] = [
    Job {
        part: Part::FlanT5Xl,
        what: "instructblip-flan-t5-xl bf16, opened",
        dtype: "bf16",
        computes: BOTH,
        rows: "open",
        batch: 1,
        input_len: 80,
        label_len: 8,
        peers: &[torch("bf16", "sdpa")],
        goals: &[
            goal("first_layer", Must::AtMost(3000.0)),
            goal("resident_mib", Must::Row(1.1, "touched_mib")),
        ],
    },
    Job {
        part: Part::FlanT5Xl,
        what: "instructblip-flan-t5-xl bf16, batch 2, 16 + 80 and 8 tokens",
        dtype: "bf16",
        computes: BOTH,
        rows: "step",
        batch: 2,
        input_len: 96,
        label_len: 8,
        peers: &[torch("bf16", "sdpa")],
        goals: &[goal("peak", Must::AtMost(10.0 * GIB))],
    },
    Job {
        part: Part::Llava,
        what: "llava-1.5-7b q4, batch 2, 16 + 80 and 8 tokens",
        dtype: "q4",
        computes: BOTH,
        rows: "step",
        batch: 2,
        input_len: 96,
        label_len: 8,
        peers: &[Peer::Torch { dtype: "bf16", attention: "sdpa", is_random: true }],
        goals: &[goal("peak", Must::AtMost(6.5 * GIB))],
    },
    Job {
        part: Part::Smollm2,
        what: "SmolLM2-135M f32, batch 16, 52 and 6 tokens",
        dtype: "f32",
        computes: BOTH,
        rows: "step,prefill,generate",
        batch: 16,
        input_len: 52,
        label_len: 6,
        peers: TORCH,
        goals: STEP,
    },
    Job {
        part: Part::Smollm2,
        what: "SmolLM2-135M f32, one sequence of 52 tokens",
        dtype: "f32",
        computes: BOTH,
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: TORCH,
        goals: DECODING,
    },
    Job {
        part: Part::Smollm2,
        what: "SmolLM2-135M f32 made q8 on loading, one sequence of 52 tokens",
        dtype: "q8",
        computes: &["f32", "int8"],
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: &[Peer::TorchInt8],
        goals: &[],
    },
    Job {
        part: Part::FlanT5Base,
        what: "flan-t5-base f32, batch 16, 52 and 6 tokens",
        dtype: "f32",
        computes: BOTH,
        rows: "step,generate",
        batch: 16,
        input_len: 52,
        label_len: 6,
        peers: TORCH,
        goals: STEP,
    },
    Job {
        part: Part::Smollm2Q4,
        what: "SmolLM2-135M q4, one sequence of 52 tokens",
        dtype: "q4",
        computes: &["f32", "int8"],
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: &[Peer::LlamaCpp],
        goals: &[goal("generate", Must::Fastest(1.0))],
    },
    Job {
        part: Part::Smollm2Q8,
        what: "SmolLM2-135M q8, one sequence of 52 tokens",
        dtype: "q8",
        computes: &["f32", "int8"],
        rows: "prefill,generate",
        batch: 1,
        input_len: 52,
        label_len: 6,
        peers: &[Peer::LlamaCpp],
        goals: &[goal("generate", Must::Fastest(1.0))],
    },
];
