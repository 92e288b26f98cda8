#!/usr/bin/env python3
"""What pydicom makes of the attributes that `tests/dicom_cases.rs` writes into files of its own.

usage: make_dicom_cases.py       writes dicom_cases.csv beside itself (needs pydicom and numpy)
"""
import csv, pathlib
import numpy as np, pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

here = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 7, 5
rows = []


def pattern(bits, signed=False):
    """The same formula stands in the Rust tests."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    values = (x * x * 977 + x * y * 613 + y * y * 389 + (x ^ y) * 55) % (1 << bits)
    return values - (1 << (bits - 1)) if signed else values


def table(n_entries, first, bits, entries):
    item = Dataset()
    vr = "SS" if first < 0 else "US"
    item.add_new("LUTDescriptor", vr, [n_entries % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, dtype="<u2").tobytes())
    return Sequence([item])


def curve(n_entries, bits):
    """A bent curve, dark for long: no window looks like it."""
    i = np.arange(n_entries, dtype=np.int64)
    return i * i * ((1 << bits) - 1) // ((n_entries - 1) * (n_entries - 1))


def case(name, bits, allocated=16, signed=False, values=None, white=None, **attributes):
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = allocated, bits, bits - 1, int(signed)
    for attribute, value in attributes.items():
        setattr(file, attribute, value)
    stored = (pattern(bits, signed) if values is None else values).astype(("int" if signed else "uint") + str(allocated))
    rescaled = apply_modality_lut(stored, file).astype(np.float64)
    if "VOILUTSequence" in file:
        white = (1 << file.VOILUTSequence[0].LUTDescriptor[2]) - 1
        gray = 255.0 * apply_voi_lut(rescaled.astype(np.int64), file) / white
    else:
        if "ModalityLUTSequence" in file:
            ends = [0, (1 << file.ModalityLUTSequence[0].LUTDescriptor[2]) - 1]
        else:
            slope, intercept = float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))
            low = -(1 << (bits - 1)) if signed else 0
            ends = sorted([slope * low + intercept, slope * (low + (1 << bits) - 1) + intercept])
        windowed = apply_voi_lut(rescaled, file) if "WindowCenter" in file else rescaled
        # pydicom windows to the range of the stored bits after the rescale.
        gray = 255.0 * (windowed - ends[0]) / (ends[1] - ends[0])
    gray = np.floor(gray + 0.5).clip(0, 255).astype(int)
    if file.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    rows.append([name, " ".join(map(str, gray.ravel()))])


window = dict(WindowCenter="2000", WindowWidth="3000")
case("no window", 12)
case("window", 12, **window)
case("mono1 window", 12, PhotometricInterpretation="MONOCHROME1", **window)
case("two windows", 12, WindowCenter=["2000", "100"], WindowWidth=["3000", "10"])
case("exact window", 12, VOILUTFunction="LINEAR_EXACT", **window)
case("sigmoid", 12, VOILUTFunction="SIGMOID", **window)
case("table", 12, VOILUTSequence=table(4096, 0, 12, curve(4096, 12)))
case("mono1 table", 12, PhotometricInterpretation="MONOCHROME1", VOILUTSequence=table(4096, 0, 12, curve(4096, 12)))
case("table of 65536", 16, VOILUTSequence=table(65536, 0, 16, curve(65536, 16)))
case("table of 10 bits", 12, VOILUTSequence=table(4096, 0, 10, curve(4096, 10)))
case("table from 40000", 16, values=pattern(13) + 40000, VOILUTSequence=table(8192, 40000, 16, curve(8192, 16)))
case("table from -2048", 12, signed=True, VOILUTSequence=table(4096, -2048, 12, curve(4096, 12)))
case("part of a table", 12, VOILUTSequence=table(1000, 1500, 12, curve(1000, 12)))
# pydicom does not read entries packed in words; packing changes how they are stored, not what they are.
case("8-bit table", 8, 8, VOILUTSequence=table(256, 0, 8, curve(256, 8)))
case("table and window", 12, VOILUTSequence=table(4096, 0, 12, curve(4096, 12)), **window)
case("rescaled table", 12, RescaleSlope="1", RescaleIntercept="-1000", VOILUTSequence=table(4096, -1000, 12, curve(4096, 12)))
case("rescaled window", 12, RescaleSlope="0.5", RescaleIntercept="1000", **window)
case("modality table", 8, 8, ModalityLUTSequence=table(256, 0, 16, curve(256, 16)))
case("modality table and window", 8, 8, ModalityLUTSequence=table(256, 0, 16, curve(256, 16)),
     WindowCenter="20000", WindowWidth="30000")
for bits in (10, 14, 16):
    case(f"{bits} bits signed", bits, signed=True)
with open(here / "dicom_cases.csv", "w", newline="") as out:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["case", "gray"])
    writer.writerows(rows)
print("pydicom", pydicom.__version__)
