//! The factors of all adapted maps of a model.

use crate::config::LoraConfig;
use crate::module::Module;
use fwd_continual::stream;
use rand::Rng;
use rand_distr::{Distribution, Normal};

/// `s·B·A` for each of some linear maps, or of several experts with a router each.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    parts: Vec<Part>,
    values: Vec<f32>,
}

/// Where the factors of a map lie among the values: `A (rank, n_in)` from `start` on, `B (n_out, rank)` behind it, and then the router
/// `(n_experts, n_in)`, all row-major.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    module: Module,
    rank: usize,
    scale: f64,
    n_experts: usize,
    start: usize,
}

/// The factors of a map, with their own values.
pub(crate) struct OwnedFactors {
    pub(crate) module: Module,
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
    /// Empty without experts.
    pub(crate) router: Vec<f32>,
}

/// The factors of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors<'a> {
    /// `(rank, n_in)`.
    pub a: &'a [f32],
    /// `(n_out, rank)`.
    pub b: &'a [f32],
    /// Rows of `A`.
    pub rank: usize,
    /// The factor of `B·A`.
    pub scale: f64,
    /// `(n_experts, n_in)`: the gates of the experts are `softmax(router·x)`, and each has an equal part of the rows of `A` and columns of `B`.
    /// Empty without experts.
    pub router: &'a [f32],
}

impl Part {
    fn n_of_a(&self) -> usize {
        self.rank * self.module.n_in
    }

    fn n_of_b(&self) -> usize {
        self.rank * self.module.n_out
    }

    fn len(&self) -> usize {
        self.n_of_a() + self.n_of_b() + self.n_experts * self.module.n_in
    }
}

impl Lora {
    /// Adapters that change nothing yet, as PEFT begins them: `A` uniform within `±1/√n_in`, `B` zero. Adapter `number` of a run with this
    /// seed has streams of its own.
    pub fn new(modules: &[Module], config: &LoraConfig, seed: u64, number: u64) -> Self {
        let of = |(i, module): (usize, &Module)| {
            let bound = (module.n_in as f32).sqrt().recip();
            let mut rng = stream(seed, "lora", [number, i as u64]);
            let a = (0..config.rank * module.n_in).map(|_| rng.random_range(-bound..bound)).collect();
            let b = vec![0.0; module.n_out * config.rank];
            let router = Vec::new();
            OwnedFactors { module: module.clone(), rank: config.rank, scale: config.scale(), a, b, router }
        };
        Self::of_factors(modules.iter().enumerate().map(of))
    }

    /// Adapters of `config.experts` experts that change nothing yet, as CoIN's code begins them: `A` normal with a deviation of 0.01, `B` zero,
    /// routers uniform within `±1/√n_in`. The rank is that of all experts together.
    pub fn with_experts(modules: &[Module], config: &LoraConfig, seed: u64, number: u64) -> Self {
        let of = |(i, module): (usize, &Module)| {
            let mut rng = stream(seed, "lora experts", [number, i as u64]);
            // Of a deviation that is a number above 0 there is a distribution.
            let a = match Normal::new(0f32, 0.01) {
                Ok(normal) => (0..config.rank * module.n_in).map(|_| normal.sample(&mut rng)).collect(),
                Err(_) => vec![0.0; config.rank * module.n_in],
            };
            let bound = (module.n_in as f32).sqrt().recip();
            let router = (0..config.experts * module.n_in).map(|_| rng.random_range(-bound..bound)).collect();
            let b = vec![0.0; module.n_out * config.rank];
            OwnedFactors { module: module.clone(), rank: config.rank, scale: config.scale(), a, b, router }
        };
        Self::of_factors(modules.iter().enumerate().map(of))
    }

    /// Adapters of given factors.
    pub(crate) fn of_factors(factors: impl Iterator<Item = OwnedFactors>) -> Self {
        let (mut parts, mut values) = (Vec::new(), Vec::new());
        for OwnedFactors { module, rank, scale, a, b, router } in factors {
            let n_experts = router.len() / module.n_in;
            parts.push(Part { module, rank, scale, n_experts, start: values.len() });
            values.extend(a);
            values.extend(b);
            values.extend(router);
        }
        Self { parts, values }
    }

    /// The adapters of some of the maps.
    pub(crate) fn of_modules(&self, is_wanted: impl Fn(&Module) -> bool) -> Self {
        let owned = |part: &Part| {
            let Factors { a, b, rank, scale, router } = self.factors_of(part);
            let [a, b, router] = [a, b, router].map(<[f32]>::to_vec);
            OwnedFactors { module: part.module.clone(), rank, scale, a, b, router }
        };
        Self::of_factors(self.parts.iter().filter(|part| is_wanted(&part.module)).map(owned))
    }

    /// The adapted maps, in the order of the values.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.parts.iter().map(|part| &part.module)
    }

    /// All factors one after another: of each map `A`, `B` and then the router if there are experts, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The factors of the map of a name; none if it is not adapted.
    pub fn factors(&self, module: &str) -> Option<Factors<'_>> {
        let part = self.parts.iter().find(|part| part.module.name == module)?;
        Some(self.factors_of(part))
    }

    /// The factors of all maps, with their places among the values.
    pub(crate) fn all_factors(&self) -> impl Iterator<Item = (&Module, std::ops::Range<usize>, Factors<'_>)> {
        self.parts
            .iter()
            .map(|part| (&part.module, part.start..part.start + part.len(), self.factors_of(part)))
    }

    /// `A`, `B` and the router of each map, to be changed.
    pub(crate) fn factors_mut(&mut self) -> impl Iterator<Item = [&mut [f32]; 3]> {
        let mut rest = &mut self.values[..];
        self.parts.iter().map(move |part| {
            let (of_part, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
            rest = behind;
            let (a, of_part) = of_part.split_at_mut(part.n_of_a());
            let (b, router) = of_part.split_at_mut(part.n_of_b());
            [a, b, router]
        })
    }

    /// `A` of each map, to be changed.
    pub(crate) fn rows_of_a(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.factors_mut().map(|[a, ..]| a)
    }

    fn factors_of(&self, part: &Part) -> Factors<'_> {
        let (a, rest) = self.values[part.start..][..part.len()].split_at(part.n_of_a());
        let (b, router) = rest.split_at(part.n_of_b());
        Factors { a, b, rank: part.rank, scale: part.scale, router }
    }
}
