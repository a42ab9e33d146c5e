//! RegLoRA's penalty on changing the elements of a weight that older tasks changed most (Chen et al. 2025, "SEFE: Superficial and Essential
//! Forgetting Eliminator for Multimodal Continual Instruction Tuning", ICML, arXiv 2505.02486).
//!
//! ```text
//! K = for each map the elements with the largest |B_old·A_old|, a share of them for each older adapter
//! L = (1/n_maps) Σ_maps mean_{(i, j) ∈ K} |(B·A)_ij|
//! dL/dB_i += c·sgn((B·A)_ij)·A_jᵀ,   dL/dA_j += c·sgn((B·A)_ij)·B_iᵀ
//! ```
//! As in the authors' code: products without their scale, 2 % of the elements, an element that two tasks changed most counts twice, and a weight
//! of 2,500.

use crate::lora::{Factors, Lora};
use rayon::prelude::*;

/// The key elements of older adapters, map by map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyElements {
    /// For each map, rows times `n_in` plus column.
    of_maps: Vec<Vec<u32>>,
}

impl KeyElements {
    /// Of adapters of the same maps, that `share` of each map's elements which each changed most; of equal ones those that stand first.
    ///
    /// # Panics
    /// For a map of more than 2³² elements.
    pub fn of(older: &[Lora], share: f64) -> Self {
        let Some(first) = older.first() else { return Self::default() };
        let modules: Vec<&str> = first.modules().map(|module| module.name.as_str()).collect();
        let of_map = |name: &&str| {
            let found = older.iter().filter_map(|old| old.factors(name));
            found.flat_map(|factors| largest(factors, share)).collect()
        };
        Self { of_maps: modules.par_iter().map(of_map).collect() }
    }

    /// RegLoRA's penalty of an adapter of the same maps. `weight` times its gradient is added to `gradient`, which has the order of
    /// [`Lora::values`].
    ///
    /// # Panics
    /// If `gradient` is shorter than the adapter's values, or the adapter is for other maps.
    pub fn add_penalty(&self, adapter: &Lora, weight: f64, gradient: &mut [f32]) -> f64 {
        let n_maps = self.of_maps.len() as f64;
        let mut penalty = 0.0;
        for ((module, place, factors), keys) in adapter.all_factors().zip(&self.of_maps) {
            let (d, rank) = (module.n_in, factors.rank);
            let (of_a, of_b) = gradient[place].split_at_mut(factors.a.len());
            let share = 1.0 / (n_maps * keys.len() as f64);
            for &key in keys {
                let (i, j) = (key as usize / d, key as usize % d);
                let b = &factors.b[i * rank..][..rank];
                let product: f64 = (0..rank).map(|r| f64::from(b[r]) * f64::from(factors.a[r * d + j])).sum();
                penalty += product.abs() * share;
                if product != 0.0 {
                    let factor = (weight * share * product.signum()) as f32;
                    for r in 0..rank {
                        of_b[i * rank + r] += factor * factors.a[r * d + j];
                        of_a[r * d + j] += factor * b[r];
                    }
                }
            }
        }
        penalty
    }

    /// Bytes that the elements of one adapter take at a share of the elements of its maps.
    pub(crate) fn n_bytes(n_elements: u64, share: f64) -> u64 {
        (4.0 * share * n_elements as f64) as u64
    }
}

/// The places of the largest `|B·A|` of a map.
fn largest(factors: Factors<'_>, share: f64) -> Vec<u32> {
    let Factors { a, b, rank, .. } = factors;
    let d = a.len() / rank;
    let n = b.len() / rank * d;
    let n_keys = (share * n as f64) as usize;
    let mut elements = Vec::with_capacity(n);
    for b in b.chunks_exact(rank) {
        let mut row = vec![0f32; d];
        for (b, a) in b.iter().zip(a.chunks_exact(d)) {
            row.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
        }
        elements.extend(row.into_iter().map(f32::abs));
    }
    let mut places: Vec<u32> = (0..n as u32).collect();
    if n_keys > 0 && n_keys < n {
        let by_size =
            |x: &u32, y: &u32| elements[*y as usize].total_cmp(&elements[*x as usize]).then(x.cmp(y));
        places.select_nth_unstable_by(n_keys, by_size);
    }
    places.truncate(n_keys);
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoraConfig;
    use crate::module::Module;

    fn adapter(number: u64) -> Lora {
        let modules = [("first", 4, 5), ("second", 3, 6)].map(|(name, n_out, n_in)| Module {
            name: name.into(),
            n_out,
            n_in,
        });
        let mut adapter = Lora::new(&modules, &LoraConfig { rank: 2, ..LoraConfig::default() }, 3, number);
        let values = adapter.values_mut().iter_mut().enumerate();
        values.for_each(|(i, x)| *x = ((i as f32 + 17.0 * number as f32) * 0.83).sin());
        adapter
    }

    fn product(adapter: &Lora, module: &str, i: usize, j: usize) -> f64 {
        let Factors { a, b, rank, .. } = adapter.factors(module).unwrap();
        let d = a.len() / rank;
        (0..rank).map(|r| f64::from(b[i * rank + r]) * f64::from(a[r * d + j])).sum()
    }

    #[test]
    fn the_key_elements_are_those_that_changed_most() {
        let (one, two) = (adapter(1), adapter(2));
        let keys = KeyElements::of(&[one.clone(), two.clone()], 0.25);
        for (of_map, (name, n_out, d)) in keys.of_maps.iter().zip([("first", 4, 5), ("second", 3, 6)]) {
            let n_keys = n_out * d / 4;
            assert_eq!(of_map.len(), 2 * n_keys);
            for (adapter, keys) in [&one, &two].into_iter().zip(of_map.chunks(n_keys)) {
                let size = |key: usize| product(adapter, name, key / d, key % d).abs();
                let least = keys.iter().map(|key| size(*key as usize)).fold(f64::INFINITY, f64::min);
                let others = (0..n_out * d).filter(|i| !keys.contains(&(*i as u32)));
                assert!(others.map(size).all(|size| size <= least + 1e-6));
            }
        }
        assert_eq!(KeyElements::of(&[], 0.5), KeyElements::default());
        assert!(KeyElements::of(std::slice::from_ref(&one), 0.01).of_maps.iter().all(Vec::is_empty));
        assert_eq!(KeyElements::of(&[one], 1.0).of_maps[0], (0..20).collect::<Vec<u32>>());
    }

    #[test]
    fn the_penalty_is_a_mean_of_magnitudes_and_its_gradient_that_of_differences() {
        let new = adapter(3);
        let keys = KeyElements::of(&[adapter(1), adapter(2)], 0.25);
        let of_map = |(name, d, keys): (&str, usize, &Vec<u32>)| -> f64 {
            let sizes =
                keys.iter().map(|key| product(&new, name, *key as usize / d, *key as usize % d).abs());
            sizes.sum::<f64>() / keys.len() as f64
        };
        let want = (of_map(("first", 5, &keys.of_maps[0])) + of_map(("second", 6, &keys.of_maps[1]))) / 2.0;
        let mut gradient = vec![1.0f32; new.values().len()];
        let penalty = keys.add_penalty(&new, 2.5, &mut gradient);
        assert!((penalty - want).abs() < 1e-9, "{penalty} {want}");
        for i in 0..gradient.len() {
            let at = |step: f32| {
                let mut moved = new.clone();
                moved.values_mut()[i] += step;
                keys.add_penalty(&moved, 0.0, &mut vec![0.0; gradient.len()])
            };
            let slope = 1.0 + 2.5 * (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!((slope - f64::from(gradient[i])).abs() < 2e-3, "value {i}: {} {slope}", gradient[i]);
        }
        // Where nothing was learnt before, there is nothing to keep away from.
        let mut none = vec![0.0; new.values().len()];
        assert_eq!(KeyElements::default().add_penalty(&new, 1.0, &mut none), 0.0);
        assert!(none.iter().all(|g| *g == 0.0));
    }
}
