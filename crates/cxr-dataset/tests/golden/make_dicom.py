#!/usr/bin/env python3
"""Tiny DICOM files and their grey pixels, from pydicom (needs pydicom, numpy, Pillow, python-gdcm).

usage: make_dicom.py       writes dicom/*.dcm and dicom.csv beside itself
"""
import csv, io, pathlib
import gdcm, numpy as np, pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1

here = pathlib.Path(__file__).parent
folder = here / "dicom"
folder.mkdir(exist_ok=True)
rows = []
WIDTH, HEIGHT = 7, 5


def pattern(bits, signed=False):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    values = (x * x * 977 + x * y * 613 + y * y * 389 + (x ^ y) * 55) % (1 << bits)
    return values - (1 << (bits - 1)) if signed else values


def lossless(path, syntax):
    """The uncompressed file, written anew by GDCM with its pixels as a lossless JPEG stream."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def case(name, values, bits, allocated, syntax=ExplicitVRLittleEndian, refused=False, signed=False, **attributes):
    file = Dataset()
    file.file_meta = FileMetaDataset()
    compressed = syntax == JPEGLosslessSV1
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if compressed else syntax
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "2.25.1"
    file.Modality, file.PhotometricInterpretation, file.SamplesPerPixel = "DX", "MONOCHROME2", 1
    file.Rows, file.Columns = HEIGHT, WIDTH
    file.BitsAllocated, file.BitsStored, file.HighBit = allocated, bits, bits - 1
    file.PixelRepresentation = int(signed)
    for attribute, value in attributes.items():
        setattr(file, attribute, value)
    stored = values.astype(("int" if signed else "uint") + str(allocated))
    if syntax == JPEGBaseline8Bit:
        out = io.BytesIO()
        Image.fromarray(stored).save(out, "JPEG", quality=95)
        file.PixelData = encapsulate([out.getvalue()])
        file["PixelData"].VR = "OB"
        stored = np.asarray(Image.open(out))
    else:
        data = stored.tobytes()
        file.PixelData = data + b"\0" * (len(data) % 2)
        file["PixelData"].VR = "OB" if allocated == 8 else "OW"
    file.save_as(folder / name, enforce_file_format=True)
    if compressed:
        lossless(folder / name, syntax)
        read = pydicom.dcmread(folder / name)
        assert read.file_meta.TransferSyntaxUID == syntax and np.array_equal(read.pixel_array, stored)
    if refused:
        rows.append([name, "refused"])
        return
    rescaled = apply_modality_lut(stored, file).astype(np.float64)
    if "VOILUTSequence" in file:
        table = file.VOILUTSequence[0]
        top = (1 << table.LUTDescriptor[2]) - 1
        gray = 255.0 * apply_voi_lut(rescaled.astype(np.int64), file, prefer_lut=True) / top
    else:
        slope, intercept = float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))
        low = -(1 << (bits - 1)) if signed else 0
        ends = sorted([slope * low + intercept, slope * (low + (1 << bits) - 1) + intercept])
        # pydicom windows to the range of the stored bits after the rescale.
        windowed = apply_voi_lut(rescaled, file) if "WindowCenter" in file else rescaled
        gray = 255.0 * (windowed - ends[0]) / (ends[1] - ends[0])
    gray = np.floor(gray + 0.5).clip(0, 255).astype(int)
    if file.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    rows.append([name, " ".join(map(str, gray.ravel()))])


case("8bit.dcm", pattern(8), 8, 8)
case("8bit_implicit.dcm", pattern(8), 8, 8, ImplicitVRLittleEndian, BodyPartExamined="CHEST", ViewPosition="PA", NumberOfFrames="1")
case("12bit_mono1_window.dcm", pattern(12), 12, 16, PhotometricInterpretation="MONOCHROME1", RescaleSlope="1.5", RescaleIntercept="-100",
     WindowCenter=["2400", "1000"], WindowWidth=["3000", "500"])
case("12bit_no_window.dcm", pattern(12), 12, 16, PhotometricInterpretation="MONOCHROME1")
case("14bit_overlay_bits.dcm", pattern(14), 14, 16, WindowCenter="8000", WindowWidth="9000", VOILUTFunction="LINEAR")
case("16bit_signed.dcm", pattern(16, True), 16, 16, signed=True, WindowCenter="500", WindowWidth="40000")
case("12bit_signed_exact.dcm", pattern(12, True), 12, 16, signed=True, WindowCenter="-50.5", WindowWidth="2000", VOILUTFunction="LINEAR_EXACT")
case("12bit_sigmoid.dcm", pattern(12), 12, 16, WindowCenter="2048", WindowWidth="1500", VOILUTFunction="SIGMOID")
case("threshold.dcm", pattern(12), 12, 16, WindowCenter="2048", WindowWidth="1")
table = Dataset()
table.LUTDescriptor = [256, 100, 12]
table["LUTDescriptor"].VR = "US"
table.add_new("LUTData", "OW", (np.arange(256, dtype=np.uint16) ** 2 // 16).astype(np.uint16).tobytes())
case("8bit_table.dcm", pattern(9), 9, 16, VOILUTSequence=Sequence([table]))
case("jpeg.dcm", pattern(8) // 16 + 100, 8, 8, JPEGBaseline8Bit)
case("jpeg_lossless_12bit.dcm", pattern(12), 12, 16, JPEGLosslessSV1, WindowCenter="1800", WindowWidth="2500")
case("jpeg_lossless_16bit.dcm", pattern(16), 16, 16, JPEGLosslessSV1)
case("ct.dcm", pattern(8), 8, 8, refused=True, Modality="CT")
case("lateral.dcm", pattern(8), 8, 8, refused=True, ViewPosition="LL")
case("left_lateral.dcm", pattern(8), 8, 8, refused=True, ViewPosition="LATERAL")
case("frames.dcm", np.stack([pattern(8)] * 2), 8, 8, refused=True, NumberOfFrames="2")
case("colour.dcm", np.stack([pattern(8)] * 3, 2), 8, 8, refused=True, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
with open(here / "dicom.csv", "w", newline="") as out:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "gray"])
    writer.writerows(rows)
print("pydicom", pydicom.__version__)
