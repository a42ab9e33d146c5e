//! The gradient of a cosine with respect to one of its vectors, which keys learn from.

use fwd_linalg::dot;

/// The cosine between two vectors; 0 if one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let scale = (dot(a, a) * dot(b, b)).sqrt();
    if scale > 0.0 { dot(a, b) / scale } else { 0.0 }
}

/// Adds `weight` times the gradient of the cosine between a query and a key with respect to the key.
pub(crate) fn add_cosine_gradient(query: &[f32], key: &[f32], weight: f64, out: &mut [f32]) {
    let (q, k) = (dot(query, query).sqrt(), dot(key, key).sqrt());
    if q > 0.0 && k > 0.0 {
        let cosine = cosine(query, key);
        for ((out, &query), &key) in out.iter_mut().zip(query).zip(key) {
            *out += (weight / k * (f64::from(query) / q - cosine * f64::from(key) / k)) as f32;
        }
    }
}
