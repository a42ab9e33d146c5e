//! scratch
use candle_core::*; use fwd_ops::*; use std::time::Instant;
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn r(d:&[usize])->Tensor{Tensor::randn(0f32,0.05f32,d,&Device::Cpu).unwrap()}
fn t(name:&str,fl:f64,f:&dyn Fn()){ for _ in 0..20{f()} let mut v:Vec<f64>=(0..100).map(|_|{let s=Instant::now();f();s.elapsed().as_secs_f64()}).collect(); v.sort_by(f64::total_cmp); println!("{name:20} {:7.0}us  {:6.1} GF/s",v[50]*1e6,fl/v[50]/1e9);}
fn main(){ rayon::scope(|_|{
  let (m,d,h)=(592,192,768);
  let x=r(&[16,37,192]);
  let l=|o,i| FrozenLinear::new(r(&[o,i]),Some(r(&[o]))).unwrap();
  // many layers so that weights are cold as in the model
  for n in [1usize,8]{
  let lin:Vec<_>=(0..n).map(|_|(l(h,d),l(d,h))).collect();
  t(&format!("2 linears x{n}"),4.*(m*d*h*n) as f64,&||{ for (a,b) in &lin { let y=a.forward(&x).unwrap(); b.forward(&y).unwrap(); } });
  let f=|act| (0..n).map(|_|FeedForwardSublayer::new(FeedForwardConfig{pre:Norm::layer(r(&[d]),r(&[d]),1e-6).unwrap(),input:l(h,d),activation:act,gated:false,output:l(d,h),post:Norm::identity()}).unwrap()).collect::<Vec<_>>();
  for act in [Activation::GeluErf,Activation::GeluTanh,Activation::Relu]{ let ff=f(act); t(&format!("ffn {act:?} x{n}"),4.*(m*d*h*n) as f64,&||{ for a in &ff { a.forward(&x).unwrap(); } }); }
  let at:Vec<_>=(0..n).map(|_|AttentionSublayer::new(AttentionConfig{pre:Norm::layer(r(&[d]),r(&[d]),1e-6).unwrap(),projection:l(3*d,d),output:l(d,d),post:Norm::identity(),n_heads:6,scale:0.2}).unwrap()).collect();
  t(&format!("attention x{n}"),((8*m*d*d+4*16*6*37*37*32)*n) as f64,&||{ for a in &at { a.forward(&x,&AttentionBias::none()).unwrap(); } });
  let at:Vec<_>=(0..n).map(|_|(l(3*d,d),l(d,d))).collect();
  t(&format!("2 lin of attn x{n}"),((8*m*d*d)*n) as f64,&||{ for a in &at { a.0.forward(&x).unwrap();a.1.forward(&x).unwrap(); } });
  }
  let px=r(&[16,3,96,96]); t("patches",0.,&||{ px.reshape((16,3,6,16,6,16)).unwrap().permute((0,2,4,1,3,5)).unwrap().reshape((16,36,768)).unwrap(); });
});}
