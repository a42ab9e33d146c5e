//! Tunes a soft prompt through one frozen attention sublayer, and checks its exact gradient against finite differences.
//!
//! ```text
//! cargo run -p fwd-ops --example tune_through_attention
//! ```
//! A hidden prompt in front of a text changes what the sublayer makes of the text. The example finds a prompt that changes it in the same
//! way, by gradient descent on the prompt alone. It computes in f64, so that finite differences are a sharp check.

#![allow(clippy::print_stdout)]

use candle_core::{DType, Device, Tensor, Var};
use fwd_ops::{AttentionBias, AttentionSublayer, AttentionWeights, Linear, Norm, OpError, Result, backward};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

const D: usize = 16;
const N_HEADS: usize = 4;
const PROMPT_LEN: usize = 4;
const TEXT_LEN: usize = 12;
const STEPS: usize = 200;
const STEP_SIZE: f64 = 20.0;

/// Normal numbers of the given standard deviation.
fn normal(rng: &mut StdRng, shape: (usize, usize), std: f64) -> Result<Tensor> {
    let values: Vec<f64> =
        (0..shape.0 * shape.1).map(|_| std * rng.sample::<f64, _>(StandardNormal)).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// A sublayer as T5 has it: RMS norm before, no bias in the projections, the residual sum after.
fn sublayer(rng: &mut StdRng) -> Result<AttentionSublayer> {
    let std = (D as f64).sqrt().recip();
    AttentionSublayer::new(AttentionWeights {
        pre: Norm::rms(Tensor::ones(D, DType::F64, &Device::Cpu)?, 1e-6)?,
        projection: Linear::new(normal(rng, (3 * D, D), std)?, None)?,
        output: Linear::new(normal(rng, (D, D), std)?, None)?,
        post: Norm::identity(),
        n_heads: N_HEADS,
        n_kv_heads: N_HEADS,
        scale: ((D / N_HEADS) as f64).sqrt().recip(),
    })
}

/// What the sublayer makes of the text behind a prompt: `(1, TEXT_LEN, D)`.
fn read(layer: &AttentionSublayer, prompt: &Tensor, text: &Tensor) -> Result<Tensor> {
    let x = Tensor::cat(&[prompt, text], 0)?.unsqueeze(0)?;
    Ok(layer.forward(&x, &AttentionBias::none())?.narrow(1, PROMPT_LEN, TEXT_LEN)?)
}

/// The mean squared distance to the wanted reading.
fn loss(layer: &AttentionSublayer, prompt: &Tensor, text: &Tensor, wanted: &Tensor) -> Result<Tensor> {
    Ok((read(layer, prompt, text)? - wanted)?.sqr()?.mean_all()?)
}

fn main() -> Result<()> {
    let mut rng = StdRng::seed_from_u64(0);
    let layer = sublayer(&mut rng)?;
    let text = normal(&mut rng, (TEXT_LEN, D), 1.0)?;
    let hidden_prompt = normal(&mut rng, (PROMPT_LEN, D), 1.0)?;
    let wanted = read(&layer, &hidden_prompt, &text)?;

    let start = normal(&mut rng, (PROMPT_LEN, D), 1.0)?;
    let prompt = Var::from_tensor(&start)?;
    let loss_of = |prompt: &Tensor| loss(&layer, prompt, &text, &wanted);

    // The prompt is the one parameter: the weights are frozen, and no gradient of theirs is ever computed.
    let gradient = &backward(&loss_of(&prompt)?, &[("prompt", &prompt)])?[0];
    let worst = worst_difference(&start, gradient, |moved| Ok(loss_of(moved)?.to_scalar()?))?;
    println!("exact gradient against finite differences: off by {worst:.1e} of the largest entry at most");
    if worst > 1e-6 {
        return Err(OpError::Candle(candle_core::Error::Msg("the gradient is not exact".into())));
    }

    for step in 0..=STEPS {
        let loss = loss_of(&prompt)?;
        if step % 40 == 0 {
            println!("step {step:>3}: loss {:.6}", loss.to_scalar::<f64>()?);
        }
        let gradient = &backward(&loss, &[("prompt", &prompt)])?[0];
        prompt.set(&(prompt.as_detached_tensor() - (gradient * STEP_SIZE)?)?)?;
    }
    Ok(())
}

/// The largest distance between an entry of the gradient at `at` and the central difference of `f`, over the largest entry.
fn worst_difference(at: &Tensor, gradient: &Tensor, f: impl Fn(&Tensor) -> Result<f64>) -> Result<f64> {
    const STEP: f64 = 1e-5;
    let base = at.flatten_all()?.to_vec1::<f64>()?;
    let gradient = gradient.flatten_all()?.to_vec1::<f64>()?;
    let (mut worst, mut largest) = (0f64, 0f64);
    for (i, &exact) in gradient.iter().enumerate() {
        let at_offset = |offset: f64| {
            let mut moved = base.clone();
            moved[i] += offset;
            f(&Tensor::from_vec(moved, at.shape(), &Device::Cpu)?)
        };
        let slope = (at_offset(STEP)? - at_offset(-STEP)?) / (2.0 * STEP);
        worst = worst.max((slope - exact).abs());
        largest = largest.max(exact.abs());
    }
    Ok(worst / largest)
}
