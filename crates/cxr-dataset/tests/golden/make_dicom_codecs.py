#!/usr/bin/env python3
"""Small DICOM files of every encoding that is read, and their grey pixels.

usage: make_dicom_codecs.py       writes dicom_codecs/*.dcm and dicom_codecs.csv beside itself

Needs pydicom with pylibjpeg-openjpeg, pylibjpeg-rle and pyjpegls, whose decoders (OpenJPEG, CharLS) give the expected
values, and imagecodecs and Pillow, for libjxl and for the streams that pydicom does not write.
"""
import csv, io, pathlib, struct, zlib
import imagecodecs, jpeg_ls, numpy as np, pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000, JPEG2000Lossless,
                         JPEGLSLossless, JPEGLSNearLossless, RLELossless)

here = pathlib.Path(__file__).parent
folder = here / "dicom_codecs"
folder.mkdir(exist_ok=True)
WIDTH, HEIGHT = 41, 35
JXL, JXL_LOSSLESS, JXL_JPEG = "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111"
ENCAPSULATED, DEFLATED_FRAME = "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.8.1"
rows = []


def scene(bits, signed=False):
    """A smooth slope, an edge, a flat field for runs, and noise."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.int64)
    top = (1 << bits) - 1
    values = (x + 2 * y) * top // (WIDTH + 2 * HEIGHT)
    values[:, 20:26] = top - values[:, 20:26]
    values[10:18, 4:18] = top // 3
    noise = (x * x * 977 + x * y * 613 + y * y * 389 + (x ^ y) * 55) % (top // 4 + 1)
    values[20:] = (values + noise)[20:] % (top + 1)
    return values - (1 << (bits - 1)) if signed else values


def dataset(bits, allocated, signed, syntax, **attributes):
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "2.25.1"
    file.Modality, file.PhotometricInterpretation, file.SamplesPerPixel = "DX", "MONOCHROME2", 1
    file.Rows, file.Columns = HEIGHT, WIDTH
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = allocated, bits, bits - 1, int(signed)
    for attribute, value in attributes.items():
        setattr(file, attribute, value)
    return file


def gray(values, bits, signed, file):
    low = -(1 << (bits - 1)) if signed else 0
    shown = apply_voi_lut(values.astype(np.float64), file) if "WindowCenter" in file else values
    return np.floor(255.0 * (shown - low) / ((1 << bits) - 1) + 0.5).clip(0, 255).astype(int)


def add(name, file, values, bits, signed, tolerance):
    rows.append([name, WIDTH, HEIGHT, tolerance, " ".join(map(str, gray(values, bits, signed, file).ravel()))])


def native(name, bits, allocated, syntax, **attributes):
    file, values = dataset(bits, allocated, False, syntax, **attributes), scene(bits)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = values.astype(f"{order}u{allocated // 8}").tobytes()
    file.PixelData = data + b"\0" * (len(data) % 2)
    file["PixelData"].VR = "OB" if allocated == 8 else "OW"
    file.save_as(folder / name, enforce_file_format=True)
    read = pydicom.dcmread(folder / name).pixel_array
    assert np.array_equal(read, values)
    add(name, file, values, bits, False, 0)


def compressed(name, bits, allocated, syntax, stream, decoded, signed=False, tolerance=0, pieces=1, offsets=True, **attributes):
    """`stream` in `pieces` fragments; `decoded` is what an independent decoder makes of it, or None to ask pydicom."""
    # pydicom does not write the newest of them: others whose names are as long take their place.
    double = {DEFLATED_FRAME: ENCAPSULATED}.get(syntax, "1.2.840.10008.1.2.4.201" if syntax in (JXL, JXL_LOSSLESS, JXL_JPEG) else syntax)
    file = dataset(bits, allocated, signed, double, **attributes)
    if pieces == 1 and offsets:
        file.PixelData = encapsulate([stream])
    else:
        step = (len(stream) // pieces) & ~1
        cuts = [stream[i * step:(i + 1) * step] for i in range(pieces - 1)] + [stream[(pieces - 1) * step:]]
        items = b"".join(struct.pack("<HHL", 0xfffe, 0xe000, len(cut) + len(cut) % 2) + cut + b"\0" * (len(cut) % 2) for cut in cuts)
        table = struct.pack("<HHLL", 0xfffe, 0xe000, 4, 0) if offsets else struct.pack("<HHL", 0xfffe, 0xe000, 0)
        file.PixelData = table + items + struct.pack("<HHL", 0xfffe, 0xe0dd, 0)
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    file.save_as(folder / name, enforce_file_format=True)
    if syntax != double:
        written = (folder / name).read_bytes()
        assert written.count(double.encode()) == 1
        (folder / name).write_bytes(written.replace(double.encode(), syntax.encode().ljust(len(double), b"\0")))
    if decoded is None:
        decoded = pydicom.dcmread(folder / name).pixel_array.astype(np.int64)
    if tolerance == 0 and syntax not in (JPEGLSNearLossless,):
        assert np.array_equal(decoded, scene(bits, signed)), name
    add(name, file, decoded, bits, signed, tolerance)


def by_pydicom(name, bits, allocated, syntax, signed=False, tolerance=0, **options):
    source = dataset(bits, allocated, signed, ExplicitVRLittleEndian)
    data = scene(bits, signed).astype(("i" if signed else "u") + str(allocated // 8)).tobytes()
    source.PixelData = data + b"\0" * (len(data) % 2)
    source["PixelData"].VR = "OB" if allocated == 8 else "OW"
    source.compress(syntax, generate_instance_uid=False, **options)
    stream = b"".join(pydicom.encaps.generate_fragments(source.PixelData))[0:]
    frames = list(pydicom.encaps.generate_frames(source.PixelData, number_of_frames=1))
    compressed(name, bits, allocated, syntax, frames[0], None, signed, tolerance)


def array(bits, signed=False):
    return scene(bits, signed).astype(("i" if signed else "u") + ("1" if bits <= 8 else "2"))


native("big_endian_8.dcm", 8, 8, ExplicitVRBigEndian)
native("big_endian_12.dcm", 12, 16, ExplicitVRBigEndian, WindowCenter="2000", WindowWidth="3000")
native("deflated_12.dcm", 12, 16, DeflatedExplicitVRLittleEndian, WindowCenter="2000", WindowWidth="3000")
raw = array(12).tobytes()
compressed("encapsulated_12.dcm", 12, 16, ENCAPSULATED, raw, scene(12))
deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
compressed("deflated_frame_12.dcm", 12, 16, DEFLATED_FRAME, deflater.compress(raw) + deflater.flush(), scene(12))

by_pydicom("rle_8.dcm", 8, 8, RLELossless)
by_pydicom("rle_12.dcm", 12, 16, RLELossless)
by_pydicom("rle_16_signed.dcm", 16, 16, RLELossless, signed=True)

for bits in (2, 7, 8, 10, 12, 16):
    by_pydicom(f"jpeg_ls_{bits}.dcm", bits, 8 if bits <= 8 else 16, JPEGLSLossless)
for bits, near in ((8, 3), (12, 2), (16, 20)):
    by_pydicom(f"jpeg_ls_{bits}_near_{near}.dcm", bits, 8 if bits <= 8 else 16, JPEGLSNearLossless, jls_error=near)

by_pydicom("jpeg_2000_8.dcm", 8, 8, JPEG2000Lossless)
by_pydicom("jpeg_2000_12.dcm", 12, 16, JPEG2000Lossless)
by_pydicom("jpeg_2000_16.dcm", 16, 16, JPEG2000Lossless)
by_pydicom("jpeg_2000_12_signed.dcm", 12, 16, JPEG2000Lossless, signed=True)
lossy = imagecodecs.jpeg2k_encode(array(12), level=48, codecformat="j2k", reversible=False, bitspersample=12)
compressed("jpeg_2000_12_lossy.dcm", 12, 16, JPEG2000, lossy, None, tolerance=1)
# 12 bits in a stream that says 16, as many archives write; in a JP2 file; in pieces; in tiles.
wide = imagecodecs.jpeg2k_encode(array(12), codecformat="j2k", reversible=True)
compressed("jpeg_2000_12_in_16.dcm", 12, 16, JPEG2000Lossless, wide, None, tolerance=0)
boxed = imagecodecs.jpeg2k_encode(array(12), codecformat="jp2", reversible=True, bitspersample=12)
compressed("jpeg_2000_12_boxed.dcm", 12, 16, JPEG2000Lossless, boxed, imagecodecs.jpeg2k_decode(boxed).astype(np.int64))
plain = imagecodecs.jpeg2k_encode(array(12), codecformat="j2k", reversible=True, bitspersample=12)
compressed("jpeg_2000_12_pieces.dcm", 12, 16, JPEG2000Lossless, plain, None, pieces=4)
compressed("jpeg_2000_12_no_offsets.dcm", 12, 16, JPEG2000Lossless, plain, None, offsets=False)
out = io.BytesIO()
Image.fromarray(array(8)).save(out, "JPEG2000", no_jp2=True, tile_size=(16, 16), num_resolutions=3, codeblock_size=(8, 8), precinct_size=(16, 16))
compressed("jpeg_2000_8_tiles.dcm", 8, 8, JPEG2000Lossless, out.getvalue(), None)

for bits in (8, 12, 16):
    stream = imagecodecs.jpegxl_encode(array(bits), lossless=True, bitspersample=bits, photometric="gray")
    compressed(f"jpeg_xl_{bits}.dcm", bits, 8 if bits <= 8 else 16, JXL_LOSSLESS, stream, imagecodecs.jpegxl_decode(stream).astype(np.int64))
stream = imagecodecs.jpegxl_encode(array(8), distance=1.0, photometric="gray")
compressed("jpeg_xl_8_lossy.dcm", 8, 8, JXL, stream, imagecodecs.jpegxl_decode(stream).astype(np.int64), tolerance=1)
jpeg = imagecodecs.jpeg8_encode(array(8), level=95)
stream = imagecodecs.jpegxl_encode_jpeg(jpeg)
compressed("jpeg_xl_8_recompressed.dcm", 8, 8, JXL_JPEG, stream, imagecodecs.jpegxl_decode(stream).astype(np.int64), tolerance=1)

with open(here / "dicom_codecs.csv", "w", newline="") as out:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "width", "height", "tolerance", "gray"])
    writer.writerows(rows)
print("pydicom", pydicom.__version__, "imagecodecs", imagecodecs.__version__)
