//! Two tasks in 16 dimensions: how much a second task's updates touch the directions of the first, with and without projection.
//!
//! ```text
//! cargo run -p fwd-linalg --example projected_step
//! ```

#![allow(clippy::print_stdout)]

use fwd_linalg::{
    AdamW, AdamWState, Basis, Gram, LinalgError, ProjectAt, ProjectedAdamW, Projection, SubspaceConfig,
    principal_angles, residual_subspace, share_within, subspace,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DIM: usize = 16;
/// Tokens of the prompt that is trained.
const PROMPT_LEN: usize = 4;

/// Random rows, `(n_rows, DIM)` row-major, whose elements are 0 outside of `coordinates`.
fn rows(rng: &mut StdRng, n_rows: usize, coordinates: std::ops::Range<usize>) -> Vec<f32> {
    let element = |i: usize| if coordinates.contains(&(i % DIM)) { rng.random_range(-1.0..1.0) } else { 0.0 };
    (0..n_rows * DIM).map(element).collect()
}

/// The change of a prompt after 50 steps of the second task.
fn change(projection: &Projection, gradients: &[Vec<f32>]) -> Result<Vec<f32>, LinalgError> {
    let optimiser = AdamW { lr: 0.01, ..AdamW::default() };
    let step = ProjectedAdamW { optimiser, projection, at: ProjectAt::Both, gradient_scale: 1.0 };
    let (mut state, mut prompt) = (AdamWState::new(PROMPT_LEN * DIM), vec![0.0; PROMPT_LEN * DIM]);
    for gradient in gradients {
        step.step(&mut state, &mut prompt, gradient)?;
    }
    Ok(prompt)
}

fn main() -> Result<(), LinalgError> {
    let mut rng = StdRng::seed_from_u64(0);
    let config = SubspaceConfig { energy: 0.99, ..SubspaceConfig::default() };

    // The first task uses coordinates 0 to 5, the second 4 to 9: they share two.
    let mut first = Gram::new(DIM);
    first.push(&rows(&mut rng, 400, 0..6))?;
    let mut second = Gram::new(DIM);
    second.push(&rows(&mut rng, 400, 4..10))?;

    let mut basis = subspace(&first, &config)?.basis;
    let first_basis: Basis = basis.clone();
    let added = residual_subspace(&second, &basis, &config)?;
    basis.extend(&added.basis)?;
    println!("the first task spans {} directions, the second adds {}", first_basis.len(), added.basis.len());
    println!("{:.0} % of the second task's energy was captured before", 100.0 * added.captured_before);
    let angles = principal_angles(&first_basis, &subspace(&second, &config)?.basis)?;
    let degrees: Vec<String> = angles.iter().map(|angle| format!("{:.0}", angle.to_degrees())).collect();
    println!("principal angles between the tasks, in degrees: {}", degrees.join(", "));

    // The second task is learnt with and without the first one's directions in the way.
    let gradients: Vec<_> = (0..50).map(|_| rows(&mut rng, PROMPT_LEN, 0..DIM)).collect();
    let complement = Projection::new(DIM, true, &[(&first_basis, -1.0)])?;
    for (name, projection) in [("plain AdamW", Projection::identity(DIM)), ("projected AdamW", complement)] {
        let share = share_within(&change(&projection, &gradients)?, &first_basis)?;
        println!("{name}: the share of the change in the first task's directions is {share:.1e}");
    }
    Ok(())
}
