"""Makes the pictures in images/ (Pillow >= 11): one small file for each kind that decoders treat differently."""
from pathlib import Path
from PIL import Image, ImageDraw

out = Path(__file__).parent / "images"
out.mkdir(exist_ok=True)
rgb = Image.new("RGB", (33, 21), (200, 40, 90))
draw = ImageDraw.Draw(rgb)
draw.ellipse((4, 2, 28, 18), fill=(20, 160, 220))
draw.line((0, 0, 32, 20), fill=(250, 250, 0))
rgba = rgb.copy()
rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
exif = Image.Exif()
exif[0x0112] = 6

rgb.save(out / "rgb.png")
rgba.save(out / "rgba.png")
rgb.convert("L").save(out / "grey.png")
rgb.convert("1").save(out / "bits.png")
rgb.quantize(16).save(out / "palette.png", transparency=3)
rgb.convert("I").point(lambda v: v * 257).convert("I;16").save(out / "grey16.png")
rgb.save(out / "frames.png", save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
for subsampling in (0, 1, 2):
    rgb.save(out / f"subsampling{subsampling}.jpg", quality=80, subsampling=subsampling)
rgb.save(out / "progressive.jpg", quality=80, progressive=True, exif=exif)
rgb.save(out / "restarts.jpg", quality=80, restart_marker_blocks=2)
rgb.convert("L").save(out / "grey.jpg", quality=80)
rgb.convert("CMYK").save(out / "cmyk.jpg", quality=80)
rgb.save(out / "lossy.webp", quality=70)
rgba.save(out / "alpha.webp", quality=70)
rgb.save(out / "lossless.webp", lossless=True)
rgb.save(out / "frames.webp", save_all=True, append_images=[rgb.rotate(90)], quality=60)
rgb.quantize(16).save(out / "still.gif")
rgb.quantize(16).save(out / "frames.gif", save_all=True, append_images=[rgb.rotate(90).quantize(16)], interlace=1)
rgb.save(out / "rgb.bmp")
rgb.quantize(16).save(out / "palette.bmp")
