#!/usr/bin/env python3
"""Makes the corpora of the decoders' targets of the golden files: their size and depth, and the compressed frame.

usage: seeds.py       writes corpus/TARGET/* beside itself
"""
import pathlib, struct

here = pathlib.Path(__file__).parent
golden = here.parent / "tests/golden"
for prefix, target in [("rle", "run_length"), ("jpeg_ls", "jpeg_ls"), ("jpeg_2000", "jpeg_2000"), ("jpeg_xl", "jpeg_xl"),
                       ("deflated_frame", "deflated_frame"), ("jpeg", "jpeg")]:
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted((golden / ("dicom" if target == "jpeg" else "dicom_codecs")).glob(prefix + "*.dcm")):
        data = file.read_bytes()
        value = lambda number: struct.unpack("<H", data[data.index(struct.pack("<HH2sH", 0x28, number, b"US", 2)) + 8:][:2])[0]
        at, frame = data.index(b"\xe0\x7f\x10\x00") + 12, b""
        while struct.unpack("<HH", data[at:at + 4]) == (0xfffe, 0xe000):
            length, = struct.unpack("<L", data[at + 4:at + 8])
            frame, at = frame + data[at + 8:at + 8 + length] if length > 4 else frame, at + 8 + length
        kind = value(0x103) | (2 if value(0x100) == 16 else 0)
        head = bytes([value(0x11) - 1, value(0x10) - 1, value(0x101) - 1, kind])
        (folder / file.stem).write_bytes(head + frame)
