"""Builds the benchmarks from the unpacked packages, into OUT/bench and OUT/text: `python build.py PACKAGES OUT [--tuxpaint FOLDER]`.

`cargo xtask data` fetches the packages and runs this. The same packages give the same bytes.
"""

import argparse
import os

import art4apps
import counting
import easy_vqa
import emoji
import flags
import fluent
import noto
import notices
import openclipart
import posters
import pretraining
import report
import scenes
import text
import tuxpaint
import words
from benchmark import Benchmark

# The default downstream sequence; the other downstream tasks are at hand by name.
SEQUENCE = ("fluent-group", "art4apps", "flags", "posters", "scenes-count")


def embedded(packages):
    """Everything that is committed."""
    bench = Benchmark()
    concepts = emoji.concepts(packages)
    pretraining.declare(bench)
    pictures = noto.build(bench, concepts)
    pictures += openclipart.build(bench, packages)
    pretraining.add_colors(bench, pictures)
    easy_vqa.build(bench, packages)
    words.build(bench, packages)
    counting.build(bench, concepts)
    art4apps.build(bench, packages)
    flags.build(bench, packages)
    posters.build(bench, packages)
    fluent.build(bench, concepts)
    scenes.build(bench, concepts)
    words.build_signs(bench, packages)
    for place, name in enumerate(SEQUENCE, 1):
        bench.tasks[name].order = place
    return bench


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", help="folder with one unpacked package in each subfolder")
    parser.add_argument("out", help="folder to write the benchmarks to")
    parser.add_argument("--tuxpaint", metavar="FOLDER", help="write the tux paint stamps here instead")
    arguments = parser.parse_args()
    if arguments.tuxpaint:
        tuxpaint.build(arguments.packages, arguments.tuxpaint)
        return
    bench, folder = embedded(arguments.packages), os.path.join(arguments.out, "bench")
    bench.write(folder)
    notices.write(bench, arguments.packages, folder)
    report.write(bench, folder)
    bench, folder = text.build(arguments.packages), os.path.join(arguments.out, "text")
    bench.write(folder)
    notices.write_text(arguments.packages, folder)
    report.write_text(bench, folder)


if __name__ == "__main__":
    main()
