#!/usr/bin/env python3
"""What torchvision's RandAugment does to a grey picture, operation by operation: writes rand_augment.csv beside itself.

Lines `map,number,magnitude,sign,x0,y0,x1,y1`: where the output pixels (0, 0) and (10, 3) lie in the source, pixel centres at whole
numbers. Lines `gray,number,magnitude,sign,…`: the picture's grey levels afterwards, row by row.
"""
import math
import pathlib

import numpy as np
import torchvision
from PIL import Image
from torchvision.transforms import RandAugment
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

WIDTH, HEIGHT, BINS = 24, 17, 31
at = np.arange(WIDTH * HEIGHT, dtype=np.int64)
picture = Image.fromarray((((at * at // 3 + 5 * at) % 180) + 40).astype(np.uint8).reshape(HEIGHT, WIDTH))
space = RandAugment()._augmentation_space(BINS, (HEIGHT, WIDTH))
names = list(space)


def magnitude_of(name, magnitude, sign):
    magnitudes, signed = space[name]
    value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
    return value * sign if signed else value


def matrix(name, value):
    """The inverse matrix that torchvision hands to Pillow, whose pixel centres lie at halves."""
    if name == "Rotate":
        # Pillow turns about the middle, counter-clockwise; the inverse turns back.
        a = -math.radians(value)
        center = (WIDTH / 2, HEIGHT / 2)
        m = [math.cos(a), math.sin(a), 0.0, -math.sin(a), math.cos(a), 0.0]
        m[2] = center[0] - m[0] * center[0] - m[1] * center[1]
        m[5] = center[1] - m[3] * center[0] - m[4] * center[1]
        return m
    shear = {"ShearX": [math.degrees(math.atan(value)), 0.0], "ShearY": [0.0, math.degrees(math.atan(value))]}.get(name, [0.0, 0.0])
    translate = {"TranslateX": [int(value), 0], "TranslateY": [0, int(value)]}.get(name, [0, 0])
    center = [0, 0] if name.startswith("Shear") else [WIDTH * 0.5, HEIGHT * 0.5]
    return F._get_inverse_affine_matrix(center, 0.0, translate, 1.0, shear)


def rotates_as_pillow(value):
    """Guards the matrix of a rotation, which Pillow computes itself."""
    from PIL import Image as I

    ours = picture.transform((WIDTH, HEIGHT), I.Transform.AFFINE, matrix("Rotate", value), I.Resampling.BILINEAR)
    theirs = F.rotate(picture, value, F.InterpolationMode.BILINEAR)
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
    return np.median(difference) <= 1


lines = []
for number, name in enumerate(names):
    for magnitude in (9, 17, 30):
        for sign in (1, -1):
            value = magnitude_of(name, magnitude, sign)
            if name.startswith(("Shear", "Translate", "Rotate")):
                if name == "Rotate":
                    assert rotates_as_pillow(value)
                m = matrix(name, value)
                points = []
                for x, y in ((0.5, 0.5), (10.5, 3.5)):
                    points += [m[0] * x + m[1] * y + m[2] - 0.5, m[3] * x + m[4] * y + m[5] - 0.5]
                lines.append(["map", number, magnitude, sign, *(f"{v:.9g}" for v in points)])
            elif sign == (1 if magnitude != 17 else -1):
                result = _apply_op(picture, name, value, F.InterpolationMode.BILINEAR, None)
                lines.append(["gray", number, magnitude, sign, *np.asarray(result).ravel()])
path = pathlib.Path(__file__).with_name("rand_augment.csv")
path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
print(path, len(lines), "lines; torchvision", torchvision.__version__)
