//! Matrices of signed bytes with a scale for each row, as the library compressed-tensors writes them (`int-quantized`, by channel).

/// The name of the tensor with the scales of a matrix: f32, a column with an element for each row.
pub(crate) fn scales_of(matrix: &str) -> String {
    format!("{matrix}_scale")
}

/// The signed bytes and the scales of a matrix with rows of `n_cols` elements: a row's scale is its largest magnitude divided by 127, and
/// its bytes are its elements divided by the scale, rounded. What is read is off by half a scale at most.
pub(crate) fn rounded(elements: &[f32], n_cols: usize) -> (Vec<i8>, Vec<f32>) {
    let mut codes = Vec::with_capacity(elements.len());
    let mut scales = Vec::new();
    for row in elements.chunks_exact(n_cols.max(1)) {
        let scale = row.iter().fold(0f32, |largest, x| largest.max(x.abs())) / 127.0;
        codes.extend(row.iter().map(|x| if scale > 0.0 { (x / scale).round() as i8 } else { 0 }));
        scales.push(scale);
    }
    (codes, scales)
}

/// The elements of a matrix, in the order of its rows.
pub(super) fn widened(codes: &[u8], scales: &[f32], n_cols: usize) -> Vec<f32> {
    let rows = codes.chunks_exact(n_cols.max(1)).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |&code| f32::from(code.cast_signed()) * scale)).collect()
}
