//! Cross entropy over the vocabulary: `loss = mean_i (logsumexp z_i − z_i[label_i])` over all labels that are not −100.

use crate::cpu::elem::sum_of;
use crate::cpu::{Elem, rows_per_task, simd};
use crate::dispatch::{Read, apply1, apply2};
use crate::embedding::int_values;
use crate::error::{OpError, Result};
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use candle_core::{Layout, Shape, Tensor};
use fwd_kernels::{CrossEntropyShape, DType, plan_cross_entropy_backward, plan_cross_entropy_forward};
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// Labels with this value do not count.
pub const IGNORE_INDEX: i64 = -100;

/// Mean negative log-likelihood of the labels, every label that is not [`IGNORE_INDEX`] weighing the same.
///
/// # Shapes
/// `logits (…, n_classes)` in f32 or f64, `labels (…)` integer -> scalar. The sum is accumulated in f64. The labels are checked on
/// the CPU: keep them there, or a GPU has to be waited for.
///
/// # Errors
/// [`OpError::Shape`] if the shapes do not fit or no label counts, [`OpError::IdOutOfRange`] for a label outside the classes.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[0f32, 0.], [5., 1.]], &Device::Cpu)?;
/// let labels = Tensor::new(&[1i64, -100], &Device::Cpu)?;
/// let loss = fwd_ops::cross_entropy(&logits, &labels)?.to_scalar::<f32>()?;
/// assert!((loss - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), fwd_ops::OpError>(())
/// ```
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let labels = check_labels(logits, labels)?;
    let count = labels.iter().filter(|&&l| l != IGNORE_INDEX).count();
    if count == 0 {
        return Err(OpError::shape("cross_entropy", "every label is -100, the mean is over nothing"));
    }
    apply1(Loss { labels, count, saved: Arc::default() }, logits)
}

/// Negative log-likelihood of every label, 0 where it is [`IGNORE_INDEX`]; not differentiable.
///
/// # Shapes
/// As [`cross_entropy`], the result has the shape of `labels`.
///
/// # Errors
/// As [`cross_entropy`], but a batch without any label is fine.
pub fn token_nll(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let values = check_labels(logits, labels)?;
    Ok(apply1(TokenNll { labels: values }, &logits.detach())?.reshape(labels.shape())?)
}

fn check_labels(logits: &Tensor, labels: &Tensor) -> Result<Arc<[i64]>> {
    let dims = logits.dims();
    if dims.is_empty() || dims[..dims.len() - 1] != *labels.dims() {
        let what = format!(
            "labels {:?} must have the shape of logits {:?} less the last",
            labels.shape(),
            logits.shape()
        );
        return Err(OpError::shape("cross_entropy", what));
    }
    let n_classes = dims[dims.len() - 1];
    if n_classes == 0 {
        return Err(OpError::shape("cross_entropy", "there are no classes"));
    }
    let values = int_values("cross_entropy", labels)?;
    let outside =
        |&(_, &label): &(usize, &i64)| label != IGNORE_INDEX && !(0..n_classes as i64).contains(&label);
    if let Some((position, &id)) = values.iter().enumerate().find(outside) {
        return Err(OpError::IdOutOfRange { op: "cross_entropy", id, position, limit: n_classes });
    }
    Ok(values.into())
}

/// `(max, Σ exp(z − max))` of one row.
#[inline(always)]
fn max_and_sum<E: Elem>(row: &[E]) -> (E, E) {
    let max = row.iter().fold(E::NEG_INFINITY, |m, &z| m.max_or_nan(z));
    (max, sum_of(row.len(), |i| Elem::exp(row[i] - max)))
}

fn nll<E: Elem>(row: &[E], label: i64) -> E {
    if label == IGNORE_INDEX {
        return E::zero();
    }
    let (max, sum) = simd(
        #[inline(always)]
        || max_and_sum(row),
    );
    Elem::ln(sum) + max - row[label as usize]
}

struct Loss {
    labels: Arc<[i64]>,
    count: usize,
    /// What a GPU computed in the forward pass that its backward pass needs.
    saved: Arc<OnceLock<OnGpu>>,
}

/// The statistics of every row, and the numbers of labels, in the memory of a GPU.
struct OnGpu {
    statistics: Tensor,
    counts: Tensor,
}

/// The outputs of the forward plan: likelihoods, statistics, loss, counts.
fn run_gpu<S: GpuStorage>(logits: Arg<'_, S>, labels: &[i64]) -> candle_core::Result<[S; 4]> {
    let plan = plan_cross_entropy_forward(&shape_on_gpu(&logits)).map_err(OpError::from)?;
    let (labels, layout) = (logits.upload(labels)?, Layout::contiguous(labels.len()));
    let outputs = logits.storage.launch(&plan, &[logits, Arg::new(&labels, &layout)])?;
    <[S; 4]>::try_from(outputs)
        .map_err(|found| candle_core::Error::Msg(format!("{}: {} outputs", plan.op, found.len())))
}

fn shape_on_gpu<S: GpuStorage>(logits: &Arg<'_, S>) -> CrossEntropyShape {
    CrossEntropyShape { rows: logits.rows(), n_classes: logits.last_dim(), dtype: DType::F32 }
}

struct LossBackward(Loss);

struct TokenNll {
    labels: Arc<[i64]>,
}

impl Kernel<1> for TokenNll {
    fn name(&self) -> &'static str {
        "token_nll"
    }

    fn cpu<E: Elem>(&self, [logits]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let rows = logits.data.par_chunks_exact(logits.last_dim()).zip(&*self.labels);
        let values: Vec<E> = rows.map(|(row, &label)| nll(row, label)).collect();
        let n = values.len();
        Ok((values, Shape::from(n)))
    }

    fn gpu<S: GpuStorage>(&self, [logits]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let [nll, ..] = run_gpu(logits, &self.labels)?;
        Ok((nll, Shape::from(self.labels.len())))
    }
}

impl Kernel<1> for Loss {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu<E: Elem>(&self, args: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (values, _) = TokenNll { labels: self.labels.clone() }.cpu(args)?;
        let mean = values.iter().map(|v| v.to_f64()).sum::<f64>() / self.count as f64;
        Ok((vec![E::of(mean)], Shape::from(())))
    }

    fn gpu<S: GpuStorage>(&self, [logits]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let [_, statistics, loss, counts] = run_gpu(logits, &self.labels)?;
        let statistics = gpu::tensor(statistics, 2 * self.labels.len());
        let _ = self.saved.set(OnGpu { statistics, counts: gpu::tensor(counts, 2) });
        Ok((loss, Shape::from(())))
    }

    fn backward(
        &self,
        [logits]: [&Tensor; 1],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 1]> {
        let Self { labels, count, saved } = self;
        let kernel = LossBackward(Loss { labels: labels.clone(), count: *count, saved: saved.clone() });
        Ok([Some(apply2(kernel, logits, dy)?)])
    }
}

impl Kernel<2> for LossBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn cpu<E: Elem>(&self, [logits, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let v = logits.last_dim();
        let weight = dy.data[0] / E::of(self.0.count as f64);
        let mut out = vec![E::zero(); logits.data.len()];
        let step = rows_per_task(self.0.labels.len());
        logits
            .data
            .par_chunks(step * v)
            .zip(out.par_chunks_mut(step * v))
            .zip(self.0.labels.par_chunks(step))
            .for_each(|((logits, out), labels)| {
                for ((row, out), &label) in logits.chunks_exact(v).zip(out.chunks_exact_mut(v)).zip(labels) {
                    if label == IGNORE_INDEX {
                        continue;
                    }
                    simd(
                        #[inline(always)]
                        || {
                            let (max, sum) = max_and_sum(row);
                            let scale = weight / sum;
                            out.iter_mut().zip(row).for_each(|(o, &z)| *o = Elem::exp(z - max) * scale);
                        },
                    );
                    out[label as usize] -= weight;
                }
            });
        Ok((out, Shape::from_dims(logits.dims)))
    }

    fn gpu<S: GpuStorage>(&self, [logits, dy]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        let Loss { labels, saved, .. } = &self.0;
        let Some(OnGpu { statistics, counts }) = saved.get() else {
            candle_core::bail!("cross_entropy: backward before forward")
        };
        let (statistics, counts) = (Read::new(statistics), Read::new(counts));
        let (statistics, counts) = (statistics.stored()?, counts.stored()?);
        let (labels, layout) = (logits.upload(labels)?, Layout::contiguous(labels.len()));
        let inputs = [logits, Arg::new(&labels, &layout), statistics, counts, dy];
        let plan = plan_cross_entropy_backward(&shape_on_gpu(&logits));
        Ok((logits.launch_one(plan, &inputs)?, Shape::from_dims(logits.dims())))
    }
}
