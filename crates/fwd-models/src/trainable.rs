//! Parameters that are trained: named arrays with their AdamW moments.
//!
//! A model is made anew for every step from [`Trainable::tracked`], whose tensors record gradients; the arrays themselves are
//! what the optimiser changes and what goes to disk.

use crate::error::{ModelError, Result};
use crate::weights::Weights;
use crate::weights::scaled::{rounded, scales_of};
use candle_core::{Device, Tensor, Var};
use fwd_prompt::linalg::{AdamW, AdamWState};
use half::bf16;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;

/// Trained parameters by name.
#[derive(Debug, Clone, Default)]
pub struct Trainable {
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Debug, Clone)]
struct Parameter {
    shape: Vec<usize>,
    values: Vec<f32>,
    state: AdamWState,
    /// What its learning rate is of the others'.
    lr_share: f64,
}

/// How far one optimiser step goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepConfig {
    /// The hyper-parameters; the weight decay is for matrices only.
    pub optimiser: AdamW,
    /// Largest norm of the whole gradient.
    pub max_norm: f64,
}

/// The loss and the gradient that a step went down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The loss before the step.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// The parameters as variables of one forward pass.
#[derive(Debug)]
pub struct Tracked {
    variables: BTreeMap<String, Var>,
    tensors: Named,
}

/// A loss and its gradient, for each parameter in the order of their names.
#[derive(Debug, Clone)]
pub struct Gradient {
    loss: f64,
    values: Vec<Vec<f32>>,
}

/// Gives the first value of a parameter by name and shape.
pub type FirstValues<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Vec<f32>>;

/// Collects what a model asks for: each parameter gets its first value from `source`.
struct Recorder<'a> {
    source: FirstValues<'a>,
    device: &'a Device,
    trainable: Trainable,
}

impl Trainable {
    /// The parameters that `build` asks for, with first values from `source`, a function of name and shape. What it builds of them
    /// is on `device`.
    ///
    /// # Errors
    /// Those of `build` and `source`; [`ModelError::Input`] if a source gives another number of values than the shape has.
    pub fn record(
        source: FirstValues<'_>,
        device: &Device,
        build: impl FnOnce(&mut dyn Weights) -> Result<()>,
    ) -> Result<Self> {
        let mut recorder = Recorder { source, device, trainable: Self::default() };
        build(&mut recorder)?;
        Ok(recorder.trainable)
    }

    /// Adds a parameter, or replaces it and its moments.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the number of values is not that of the shape.
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<()> {
        if values.len() != shape.iter().product::<usize>() {
            let what = format!("`{name}` has {} values for the shape {shape:?}", values.len());
            return Err(ModelError::input("trained parameters", what));
        }
        let state = AdamWState::new(values.len());
        self.parameters
            .insert(name.to_owned(), Parameter { shape: shape.to_vec(), values, state, lr_share: 1.0 });
        Ok(())
    }

    /// Gives a parameter another learning rate: so much of that of the others. Nothing happens if there is none of the name.
    pub fn set_lr_share(&mut self, name: &str, share: f64) {
        if let Some(parameter) = self.parameters.get_mut(name) {
            parameter.lr_share = share;
        }
    }

    /// Shape and values of a parameter.
    pub fn get(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.parameters.get(name).map(|p| (&p.shape[..], &p.values[..]))
    }

    /// The names of all parameters, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().map(String::as_str)
    }

    /// First and second moments of a parameter, and the number of steps that they have seen.
    pub fn moments(&self, name: &str) -> Option<(&[f32], &[f32], u32)> {
        let state = &self.parameters.get(name)?.state;
        let (first, second) = state.moments();
        Some((first, second, state.n_steps()))
    }

    /// Gives a parameter that is there other moments, as a saved state has them.
    ///
    /// # Errors
    /// [`ModelError::Input`] if there is none of the name, or of another size.
    pub fn set_moments(&mut self, name: &str, first: Vec<f32>, second: Vec<f32>, n_steps: u32) -> Result<()> {
        let refuse = |what: &str| ModelError::input("trained parameters", format!("`{name}` {what}"));
        let parameter = self.parameters.get_mut(name).ok_or_else(|| refuse("does not exist"))?;
        if first.len() != parameter.values.len() {
            return Err(refuse(&format!("has {} values, not {}", parameter.values.len(), first.len())));
        }
        parameter.state =
            AdamWState::from_moments(first, second, n_steps).map_err(|e| refuse(&e.to_string()))?;
        Ok(())
    }

    /// All values one after another, in the order of the names.
    pub fn flat_values(&self) -> Vec<f32> {
        self.parameters.values().flat_map(|p| &p.values).copied().collect()
    }

    /// A gradient of these parameters from its elements in the order of [`Self::flat_values`].
    ///
    /// # Errors
    /// [`ModelError::Input`] if there are more or fewer elements than parameters.
    pub fn gradient_of_flat(&self, loss: f64, flat: &[f32]) -> Result<Gradient> {
        if flat.len() != self.n_parameters() {
            let what =
                format!("a gradient of {} elements for {} parameters", flat.len(), self.n_parameters());
            return Err(ModelError::input("optimiser", what));
        }
        let mut rest = flat;
        let values = self.parameters.values().map(|p| {
            let (head, tail) = rest.split_at(p.values.len());
            rest = tail;
            head.to_vec()
        });
        Ok(Gradient { loss, values: values.collect() })
    }

    /// Takes a parameter out, with its moments; nothing happens if there is none of this name.
    pub fn remove(&mut self, name: &str) {
        self.parameters.remove(name);
    }

    /// The number of optimiser steps that the parameters have taken.
    pub fn n_steps(&self) -> usize {
        self.parameters.values().map(|p| p.state.n_steps() as usize).max().unwrap_or(0)
    }

    /// The number of trained numbers: the sizes of all parameters added up.
    pub fn n_parameters(&self) -> usize {
        self.parameters.values().map(|p| p.values.len()).sum()
    }

    /// The parameters as plain tensors: a model made of them records no gradient.
    ///
    /// # Errors
    /// An error of candle.
    pub fn frozen(&self, device: &Device) -> Result<impl Weights> {
        let tensor = |(name, p): (&String, &Parameter)| -> Result<(String, Tensor)> {
            Ok((name.clone(), Tensor::from_slice(&p.values, &p.shape[..], device)?))
        };
        Ok(Named(self.parameters.iter().map(tensor).collect::<Result<_>>()?))
    }

    /// The parameters as variables.
    ///
    /// # Errors
    /// An error of candle.
    pub fn tracked(&self, device: &Device) -> Result<Tracked> {
        let variable = |(name, p): (&String, &Parameter)| -> Result<(String, Var)> {
            Ok((name.clone(), Var::from_slice(&p.values, &p.shape[..], device)?))
        };
        let variables: BTreeMap<_, _> = self.parameters.iter().map(variable).collect::<Result<_>>()?;
        let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        Ok(Tracked { variables, tensors: Named(tensors) })
    }

    /// One AdamW step down a gradient of these parameters.
    ///
    /// # Errors
    /// [`ModelError::Input`] if the gradient is not one of these parameters; nothing is changed then.
    pub fn step(&mut self, gradient: Gradient, config: &StepConfig) -> Result<StepReport> {
        let Gradient { loss, values: gradients } = gradient;
        let sizes = self.parameters.values().map(|p| p.values.len());
        if !sizes.eq(gradients.iter().map(Vec::len)) {
            return Err(ModelError::input("optimiser", "the gradient is one of other parameters"));
        }
        let norm_of = |g: &Vec<f32>| g.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        // One sum for each parameter, added in the order of names: the same bits on any number of threads.
        let squares: Vec<f64> = gradients.par_iter().map(norm_of).collect();
        let grad_norm = squares.iter().sum::<f64>().sqrt();
        let scale = if grad_norm > config.max_norm { (config.max_norm / grad_norm) as f32 } else { 1.0 };
        let parameters: Vec<&mut Parameter> = self.parameters.values_mut().collect();
        let stepped = parameters.into_par_iter().zip(gradients).try_for_each(|(p, mut gradient)| {
            gradient.iter_mut().for_each(|g| *g *= scale);
            let decay = if p.shape.len() >= 2 { config.optimiser.weight_decay } else { 0.0 };
            let lr = config.optimiser.lr * p.lr_share;
            let optimiser = AdamW { lr, weight_decay: decay, ..config.optimiser };
            optimiser.step(&mut p.state, &mut p.values, &gradient)
        });
        stepped.map_err(|e| ModelError::input("optimiser", e.to_string()))?;
        Ok(StepReport { loss, grad_norm })
    }

    /// The values alone in bf16, as a checkpoint for [`crate::Blip::load`].
    ///
    /// # Errors
    /// [`ModelError::Input`] if a value is not a finite number in bf16.
    pub fn to_bf16_checkpoint(&self) -> Result<Vec<u8>> {
        let arrays = self.parameters.iter().map(|(name, p)| p.in_bf16(name)).collect::<Result<Vec<_>>>()?;
        serialise(&arrays)
    }

    /// The values alone, half as large as [`Self::to_bf16_checkpoint`]: matrices in signed bytes (`I8`), each with a scale for every row
    /// in the f32 tensor `…weight_scale`, as the library compressed-tensors writes them; all else in bf16.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a value is not a finite number in bf16.
    pub fn to_int8_checkpoint(&self) -> Result<Vec<u8>> {
        let mut arrays = Vec::new();
        for (name, p) in &self.parameters {
            let in_bf16 = p.in_bf16(name)?;
            let [n_rows, n_cols] = p.shape[..] else {
                arrays.push(in_bf16);
                continue;
            };
            let (codes, scales) = rounded(&p.values, n_cols);
            let bytes = codes.iter().map(|code| code.cast_unsigned()).collect();
            arrays.push(Array { name: name.clone(), dtype: Dtype::I8, shape: p.shape.clone(), bytes });
            let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            arrays.push(Array { name: scales_of(name), dtype: Dtype::F32, shape: vec![n_rows, 1], bytes });
        }
        serialise(&arrays)
    }
}

impl Parameter {
    fn in_bf16(&self, name: &str) -> Result<Array> {
        let values: Vec<bf16> = self.values.iter().map(|&v| bf16::from_f32(v)).collect();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(ModelError::input("bf16 checkpoint", format!("`{name}` does not fit into bf16")));
        }
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(Array { name: name.into(), dtype: Dtype::BF16, shape: self.shape.clone(), bytes })
    }
}

/// A tensor of a file that is written.
struct Array {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn serialise(arrays: &[Array]) -> Result<Vec<u8>> {
    let broken = |e: safetensors::SafeTensorError| ModelError::input("safetensors", e.to_string());
    let views = arrays
        .iter()
        .map(|a| Ok((&a.name, TensorView::new(a.dtype, a.shape.clone(), &a.bytes).map_err(broken)?)))
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, None).map_err(broken)
}

impl Tracked {
    /// The gradient of a loss that was computed from these parameters.
    ///
    /// # Errors
    /// [`ModelError::Op`] if a parameter has no gradient or a non-finite one, or the loss is not finite.
    pub fn gradient(&self, loss: &Tensor) -> Result<Gradient> {
        let variables: Vec<(&str, &Var)> =
            self.variables.iter().map(|(name, var)| (name.as_str(), var)).collect();
        let gradients = fwd_ops::backward(loss, &variables)?;
        let values =
            gradients.iter().map(|g| Ok(g.flatten_all()?.to_vec1::<f32>()?)).collect::<Result<_>>()?;
        Ok(Gradient { loss: f64::from(loss.to_scalar::<f32>()?), values })
    }
}

impl Gradient {
    /// The loss that it is the gradient of.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// Its elements one after another, in the order of the parameters' names.
    pub fn into_flat(self) -> Vec<f32> {
        self.values.concat()
    }

    /// The gradient of the sum of both losses.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.loss += other.loss;
        for (sum, more) in self.values.iter_mut().zip(&other.values) {
            sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        }
        self
    }
}

impl Weights for Recorder<'_> {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if self.trainable.get(name).is_none() {
            let values = (self.source)(name, shape)?;
            self.trainable.insert(name, shape, values)?;
        }
        let values = self.trainable.get(name).map_or(&[][..], |(_, values)| values);
        Ok(Tensor::from_slice(values, shape, self.device)?)
    }

    /// A recorder has whatever it is asked for; what a model would take instead of something else is not asked for.
    fn has(&self, _: &str) -> bool {
        true
    }
}

/// Tensors by name.
#[derive(Debug)]
struct Named(BTreeMap<String, Tensor>);

impl Weights for Named {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        match self.0.get(name) {
            Some(tensor) if tensor.dims() == shape => Ok(tensor.clone()),
            Some(tensor) => {
                let what = format!("`{name}` is {:?}, the model needs {shape:?}", tensor.dims());
                Err(ModelError::input("trained parameters", what))
            }
            None => Err(ModelError::input("trained parameters", format!("`{name}` is missing"))),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl Weights for Tracked {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.tensors.get(name, shape)
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.has(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quadratic() -> Trainable {
        let mut trainable = Trainable::default();
        trainable.insert("a", &[2, 2], vec![1.0, -2.0, 3.0, 0.5]).unwrap();
        trainable.insert("b", &[3], vec![1.0, 1.0, 1.0]).unwrap();
        trainable
    }

    fn loss(tracked: &mut Tracked) -> Tensor {
        let a = tracked.get("a", &[2, 2]).unwrap().sqr().unwrap().sum_all().unwrap();
        (a + tracked.get("b", &[3]).unwrap().sum_all().unwrap()).unwrap()
    }

    fn take_steps(trainable: &mut Trainable, n: usize) -> Vec<StepReport> {
        let config = StepConfig { optimiser: AdamW { lr: 0.1, ..AdamW::default() }, max_norm: 1.0 };
        (0..n)
            .map(|_| {
                let mut tracked = trainable.tracked(&Device::Cpu).unwrap();
                let loss = loss(&mut tracked);
                trainable.step(tracked.gradient(&loss).unwrap(), &config).unwrap()
            })
            .collect()
    }

    #[test]
    fn steps_go_down_and_a_saved_state_goes_on_with_the_same_bits() {
        let mut whole = quadratic();
        let reports = take_steps(&mut whole, 10);
        assert!((reports[0].loss - 17.25).abs() < 1e-6);
        assert!((reports[0].grad_norm - (4.0f64 * 14.25 + 3.0).sqrt()).abs() < 1e-5);
        assert!(reports[9].loss < reports[0].loss - 5.0);
        let mut first = quadratic();
        take_steps(&mut first, 4);
        // What a saved state keeps: values and moments.
        let mut second = quadratic();
        for name in ["a", "b"] {
            let (shape, values) = first.get(name).unwrap();
            second.insert(name, shape, values.to_vec()).unwrap();
            let (m, v, n_steps) = first.moments(name).unwrap();
            second.set_moments(name, m.to_vec(), v.to_vec(), n_steps).unwrap();
        }
        assert!(second.set_moments("c", vec![], vec![], 1).is_err());
        assert!(second.set_moments("b", vec![0.0], vec![0.0], 1).is_err());
        take_steps(&mut second, 6);
        assert_eq!(second.get("a"), whole.get("a"));
        assert_eq!(second.get("b"), whole.get("b"));
    }

    #[test]
    fn eight_bits_are_read_as_written_to_half_a_scale() {
        use crate::weights::{Checkpoint, WeightDtype};
        use fwd_ops::Weight;
        let values: Vec<f32> = (0..96).map(|i| ((i * 37 % 97) as f32 - 48.0) * 0.01).collect();
        let mut trainable = Trainable::default();
        let mut matrix = values.clone();
        // A row of zeros, and one of other magnitude.
        matrix[32..64].fill(0.0);
        matrix[64..].iter_mut().for_each(|x| *x *= 0.1);
        trainable.insert("map.weight", &[3, 32], matrix.clone()).unwrap();
        trainable.insert("map.bias", &[3], vec![0.5, -2.0, 1.0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, trainable.to_int8_checkpoint().unwrap()).unwrap();
        assert!(
            std::fs::metadata(&path).unwrap().len() < 500,
            "three rows of 32 bytes, three scales and a bias"
        );
        for dtype in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::Q8] {
            let mut checkpoint = Checkpoint::open(dir.path(), dtype, &Device::Cpu).unwrap();
            let bias = checkpoint.get("map.bias", &[3]).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bias, [0.5, -2.0, 1.0]);
            let read = match checkpoint.weight("map.weight", [3, 32]).unwrap() {
                Weight::Dense(tensor) => tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                Weight::Matrix(matrix) => matrix.values().unwrap(),
            };
            for (row, (read, written)) in read.chunks(32).zip(matrix.chunks(32)).enumerate() {
                let largest = written.iter().fold(0f32, |most, x| most.max(x.abs()));
                // Another rounding of the same size, where it is kept in another type.
                let bound = largest / 127.0 * if dtype == WeightDtype::F32 { 0.501 } else { 1.01 };
                let is_near = read.iter().zip(written).all(|(a, b)| (a - b).abs() <= bound);
                assert!(is_near, "{dtype} row {row}: {read:?} for {written:?}");
            }
            // The scales belong to the matrix: none is left over.
            checkpoint.finish(|_| None).unwrap();
        }
    }

    #[test]
    fn a_flat_gradient_is_the_same_gradient() {
        let (mut by_parameter, mut flat) = (quadratic(), quadratic());
        let config = StepConfig { optimiser: AdamW { lr: 0.1, ..AdamW::default() }, max_norm: 1.0 };
        take_steps(&mut by_parameter, 1);
        let mut tracked = flat.tracked(&Device::Cpu).unwrap();
        let loss = loss(&mut tracked);
        let gradient = tracked.gradient(&loss).unwrap();
        let (loss, elements) = (gradient.loss(), gradient.into_flat());
        assert_eq!(elements, [2.0, -4.0, 6.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(flat.gradient_of_flat(loss, &elements[1..]).is_err());
        flat.step(flat.gradient_of_flat(loss, &elements).unwrap(), &config).unwrap();
        assert_eq!(flat.flat_values(), by_parameter.flat_values());
    }

    #[test]
    fn a_parameter_without_gradient_and_another_ones_gradient_are_errors() {
        let mut trainable = quadratic();
        trainable.insert("unused", &[1], vec![0.0]).unwrap();
        let mut tracked = trainable.tracked(&Device::Cpu).unwrap();
        let loss = loss(&mut tracked);
        let error = tracked.gradient(&loss).unwrap_err().to_string();
        assert!(error.contains("no gradient for [unused]"), "{error}");
        assert!(trainable.insert("c", &[2], vec![0.0]).is_err());
        assert!(tracked.get("a", &[4]).unwrap_err().to_string().contains("`a` is [2, 2]"));
        let other = quadratic();
        let mut tracked = other.tracked(&Device::Cpu).unwrap();
        let loss = self::loss(&mut tracked);
        let gradient = tracked.gradient(&loss).unwrap();
        let config = StepConfig { optimiser: AdamW::default(), max_norm: 1.0 };
        let error = trainable.step(gradient, &config).unwrap_err().to_string();
        assert!(error.contains("other parameters"), "{error}");
        let mut large = quadratic();
        large.insert("d", &[1], vec![f32::MAX]).unwrap();
        assert!(large.to_bf16_checkpoint().unwrap_err().to_string().contains("`d` does not fit"));
    }
}
