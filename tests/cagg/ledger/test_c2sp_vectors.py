"""Vectors that others published: what their implementations accept and refuse, ours accepts and refuses.

Sources, each beside its vectors:

- C2SP signed-note, tlog-checkpoint, tlog-tiles, tlog-proof, tlog-witness (https://c2sp.org, CC-BY-4.0), 2026.
- golang.org/x/mod/sumdb/note and sumdb/tlog (Copyright 2019 The Go Authors, BSD-3-Clause): note_test.go, tile_test.go,
  tlog_test.go, ct_test.go with answers of the Google Argon 2020 log.
- github.com/transparency-dev/merkle, proof/verify_test.go (Copyright 2017 Google LLC, Apache-2.0): the tree of eight
  leaves that the Certificate Transparency implementations share.
- github.com/transparency-dev/formats, proof/tlog_proof_test.go and log/checkpoint_test.go (Copyright 2021, 2026 Google
  LLC, Apache-2.0).
"""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pymerkle import InmemoryTree

from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged
from cagg.ledger.checkpoint import FileSigner
from cagg.ledger.export.tiles import tile_path
from cagg.ledger.merkle import (
    EMPTY_ROOT,
    TreeReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from cagg.ledger.notes import TreeHead, VerifierKey, checkpoint_text, open_note, parse_note, signed_note
from cagg.ledger.proofs import InclusionProof, parse_proof

# ---- signed notes: golang.org/x/mod/sumdb/note, note_test.go --------------------------------------------------------

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_SIGNED = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_SIGNED = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
PETER_KEY, ENOCH_KEY = VerifierKey.parse(PETER), VerifierKey.parse(ENOCH)


def test_a_verifier_key_is_read_and_written() -> None:
    assert PETER_KEY.name == "PeterNeumann"
    assert PETER_KEY.key_id.hex() == "c74f20a3"
    assert (str(PETER_KEY), str(ENOCH_KEY)) == (PETER, ENOCH)


def test_mangled_verifier_keys_are_refused() -> None:
    for first in range(len(PETER) + 1):
        for last in range(first + 1, len(PETER) + 1):
            if (first, last) != (0, len(PETER)):
                with pytest.raises(InvalidInput):
                    VerifierKey.parse(PETER[first:last])
    for place in range(len(PETER)):
        with pytest.raises(InvalidInput):
            VerifierKey.parse(PETER[:place] + chr(ord(PETER[place]) + 1) + PETER[place + 1 :])
    for wrong in (
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # length, with its key id
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # algorithm, with its key id
    ):
        with pytest.raises(InvalidInput):
            VerifierKey.parse(wrong)


def test_a_private_key_signs_as_go_does(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    path.write_text(PETER_PRIVATE + "\n", encoding="utf-8")
    path.chmod(0o600)
    signer = FileSigner.load(path)
    assert signer.public_key() == PETER_KEY.public_key
    assert signed_note(TEXT, signer.sign(TEXT.encode()), PETER_KEY) == f"{TEXT}\n{PETER_SIGNED}"
    for cut in range(1, len(PETER_PRIVATE)):
        path.write_text(PETER_PRIVATE[:cut], encoding="utf-8")
        with pytest.raises(ConfigurationError):
            FileSigner.load(path)


def test_notes_are_opened_as_go_opens_them() -> None:
    both = f"{TEXT}\n{PETER_SIGNED}{ENOCH_SIGNED}"
    assert open_note(both, [PETER_KEY]) == (TEXT, [PETER_KEY])
    assert open_note(both, [PETER_KEY, ENOCH_KEY]) == (TEXT, [PETER_KEY, ENOCH_KEY])
    assert open_note(both, []) == (TEXT, [])  # Go reports that as an error of its own; ours says "no signer"
    twice = (
        f"{TEXT}\n{PETER_SIGNED}{PETER_SIGNED}{ENOCH_SIGNED}{ENOCH_SIGNED}{ENOCH_SIGNED[:60]}ABCD{ENOCH_SIGNED[60:]}"
    )
    assert open_note(twice, [PETER_KEY]) == (TEXT, [PETER_KEY])


@pytest.mark.parametrize(
    "note",
    [
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}\n{PETER_SIGNED[:-1]}",
        f"\x01{TEXT}\n{PETER_SIGNED}",
        f"{TEXT}\n— Bad Name {PETER_SIGNED[15:-1]}",
        f"{TEXT}\n{PETER_SIGNED}Unexpected line.\n",
        f"{TEXT}\n{PETER_SIGNED * 101}",
        f"{TEXT}\n{PETER_SIGNED[:60]}ABCD{PETER_SIGNED[60:]}",
    ],
)
def test_notes_that_go_refuses_are_refused(note: str) -> None:
    with pytest.raises(LedgerDamaged):
        open_note(note, [PETER_KEY])


def test_at_least_sixteen_signatures_are_accepted() -> None:
    # C2SP signed-note: verifiers MUST accept at least up to 16 signatures.
    assert open_note(f"{TEXT}\n{ENOCH_SIGNED * 15}{PETER_SIGNED}", [PETER_KEY])[1] == [PETER_KEY]


def test_the_specifications_own_notes_are_well_formed() -> None:
    # C2SP signed-note and tlog-checkpoint, first example of each; the specifications do not publish the keys.
    poem = (
        "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
        "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwa"
        "qP3ZekRwNtIc=\n"
    )
    text, _ = open_note(poem, [])
    assert text.endswith("sole:\n\ned è subito sera.\n")
    head, _ = parse_note(SOFA, [])
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert base64.b64encode(head.root) == b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
    assert SOFA.startswith(checkpoint_text(head) + "\n")


SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xe"
    "McTOAYQ8=\n"
)


# ---- checkpoints: sumdb/tlog note_test.go, transparency-dev/formats log/checkpoint_test.go --------------------------


def test_a_tree_head_is_written_as_go_writes_it() -> None:
    head = TreeHead(origin="go.sum database tree", size=123456789012, root=leaf_hash(b"hello world"))
    golden = "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n"
    assert checkpoint_text(head) == golden
    signed = "— x AAAAAAA=\n"
    assert parse_note(f"{golden}\n{signed}", [])[0] == head
    assert parse_note(f"{golden}JOE\n\n{signed}", [])[0] == head


@pytest.mark.parametrize(
    "text",
    [
        "go.sum database tree\n0xabcdef\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n",
        "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBTOOBIG=\n",
        "Head\n9944\n",
        "\n9944\ndGhlIHZpZXcgZnJvbSB0aGUgdHJlZSB0b3BzIGlzIGdyZWF0IQ==\n",
        "Log\nbananas\ndGhlIHZpZXcgZnJvbSB0aGUgdHJlZSB0b3BzIGlzIGdyZWF0IQ==\n",
        "Log\n-34\ndGhlIHZpZXcgZnJvbSB0aGUgdHJlZSB0b3BzIGlzIGdyZWF0IQ==\n",
        "Log\n3438945738945739845734895735\ndGhlIHZpZXcgZnJvbSB0aGUgdHJlZSB0b3BzIGlzIGdyZWF0IQ==\n",
        "Log\n123\nThisIsn'tBase64\n",
    ],
)
def test_tree_heads_that_others_refuse_are_refused(text: str) -> None:
    with pytest.raises(LedgerDamaged):
        parse_note(f"{text}\n— x AAAAAAA=\n", [])


# ---- tile paths: C2SP tlog-tiles; sumdb/tlog tlog_test.go (whose first number is the height, 8 here) -----------------


@pytest.mark.parametrize(
    ("level", "number", "width", "expected"),
    [
        (0, 1234067, 256, "tile/0/x001/x234/067"),  # tlog-tiles, "Merkle Tree"
        (0, 1234067, 8, "tile/0/x001/x234/067.p/8"),
        (0, 1, 256, "tile/0/001"),
        (0, 1, 5, "tile/0/001.p/5"),
        (5, 123456078, 256, "tile/5/x123/x456/078"),
        (5, 123456078, 2, "tile/5/x123/x456/078.p/2"),
        (0, 3057500, 256, "tile/0/x003/x057/500"),
        (None, 3057500, 256, "tile/entries/x003/x057/500"),
        (None, 0, 255, "tile/entries/000.p/255"),
        (63, 999, 256, "tile/63/999"),
        (1, 1000, 1, "tile/1/x001/000.p/1"),
    ],
)
def test_tile_paths(level: int | None, number: int, width: int, expected: str) -> None:
    assert tile_path(level, number, width) == expected


# ---- the tree of eight leaves: transparency-dev/merkle, proof/verify_test.go ----------------------------------------

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
INCLUSION = {  # (index, size): path; the source counts leaves from 1
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")


class _InMemory:
    def leaf_hashes(self, start: int, stop: int) -> list[bytes]:
        return [leaf_hash(leaf) for leaf in LEAVES[start:stop]]

    def tile_roots(self, level: int, start: int, stop: int) -> list[bytes]:
        raise AssertionError("eight leaves have no full tile")


TREE = TreeReader(_InMemory(), 8)


def _hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def test_the_roots_of_the_eight_trees() -> None:
    assert bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") == EMPTY_ROOT
    other = InmemoryTree(algorithm="sha256")
    for size, leaf in enumerate(LEAVES, 1):
        other.append_entry(leaf)
        assert root_of(leaf_hash(item) for item in LEAVES[:size]) == ROOTS[size - 1] == other.get_root()
        assert TREE.root(size) == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_the_published_inclusion_proofs(index: int, size: int) -> None:
    path, leaf, root = _hashes(INCLUSION[index, size]), leaf_hash(LEAVES[index]), ROOTS[size - 1]
    assert inclusion_proof(TREE, index, size) == path

    def holds(**changed: Any) -> bool:
        return verify_inclusion(**{"leaf": leaf, "index": index, "size": size, "proof": path, "root": root, **changed})

    assert holds()
    wrong: list[dict[str, Any]] = [
        *({"index": at} for at in (index - 1, index + 1, index ^ 2)),
        *({"size": at} for at in (size * 2, size // 2)),
        *({"leaf": item} for item in (b"WrongLeaf", SOME_HASH)),
        *({"root": item} for item in (EMPTY_ROOT, SOME_HASH)),
        *({"proof": item} for item in ([*path, b""], [*path, root], [b"", *path], [root, *path])),
        *({"proof": [bytes([node[0] ^ 8]) + node[1:] if at == turn else node for turn, node in enumerate(path)]}
          for at, _ in enumerate(path)),
        *({"proof": item} for item in (path[:-1], [*path[:1], SOME_HASH, *path[1:]]) if path),
    ]  # fmt: skip
    assert not [changed for changed in wrong if holds(**changed)]


@pytest.mark.parametrize(("old_size", "size"), CONSISTENCY)
def test_the_published_consistency_proofs(old_size: int, size: int) -> None:
    path, old_root, root = _hashes(CONSISTENCY[old_size, size]), ROOTS[old_size - 1], ROOTS[size - 1]
    assert consistency_proof(TREE, old_size, size) == path

    def holds(**changed: Any) -> bool:
        given = {"old_size": old_size, "old_root": old_root, "size": size, "root": root, "proof": path}
        return verify_consistency(**{**given, **changed})

    assert holds()
    if not path:
        return
    wrong: list[dict[str, Any]] = [
        *({"old_size": at} for at in (old_size - 1, old_size + 1, old_size ^ 2)),
        *({"size": at} for at in (size * 2, size // 2)),
        {"old_root": b"WrongRoot"}, {"root": b"WrongRoot"}, {"old_root": root, "root": old_root},
        *({"proof": item} for item in ([], [*path, b""], [*path, old_root], [*path, root], [b"", *path],
                                       [old_root, *path], [root, *path], [path[0], *path], path[:-1])),
        *({"proof": [bytes([node[0] ^ 16]) + node[1:] if at == turn else node for turn, node in enumerate(path)]}
          for at, _ in enumerate(path)),
    ]  # fmt: skip
    assert not [changed for changed in wrong if holds(**changed)]


def test_a_real_log_of_a_thousand_million_leaves() -> None:
    # sumdb/tlog ct_test.go: answers of https://ct.googleapis.com/logs/argon2020/ct/v1/ to get-sth, get-proof-by-hash
    # of entry 10000 (here its leaf hash) and get-sth-consistency?first=3654490.
    data = json.loads((Path(__file__).parents[2] / "data" / "argon2020.json").read_text(encoding="utf-8"))
    root, size = base64.b64decode(data["sha256_root_hash"]), data["tree_size"]
    leaf = leaf_hash(base64.b64decode(data["leaf_input"]))
    path = [base64.b64decode(item) for item in data["audit_path"]]
    assert verify_inclusion(leaf=leaf, index=data["leaf_index"], size=size, proof=path, root=root)
    assert not verify_inclusion(leaf=leaf, index=data["leaf_index"] + 1, size=size, proof=path, root=root)
    chain = [base64.b64decode(item) for item in data["consistency"]]
    old_root = base64.b64decode(data["first_root"])
    assert verify_consistency(old_size=data["first"], old_root=old_root, size=size, root=root, proof=chain)
    assert not verify_consistency(old_size=data["first"] - 1, old_root=old_root, size=size, root=root, proof=chain)


# ---- proofs: C2SP tlog-proof; transparency-dev/formats, proof/tlog_proof_test.go ------------------------------------

H1, H2 = sha256(b"hash1").digest(), sha256(b"hash2").digest()
B1, B2 = base64.b64encode(H1).decode(), base64.b64encode(H2).decode()


@pytest.mark.parametrize(
    ("proof", "text"),
    [
        (
            InclusionProof(index=5, path=(H1, H2), checkpoint="test checkpoint\n", entry=None),
            f"c2sp.org/tlog-proof@v1\nindex 5\n{B1}\n{B2}\n\ntest checkpoint\n",
        ),
        (
            InclusionProof(index=10, path=(H1,), checkpoint="checkpoint data\n", entry=b"extra information"),
            f"c2sp.org/tlog-proof@v1\nextra ZXh0cmEgaW5mb3JtYXRpb24=\nindex 10\n{B1}\n\ncheckpoint data\n",
        ),
        (
            InclusionProof(index=0, path=(), checkpoint="checkpoint\n", entry=None),
            "c2sp.org/tlog-proof@v1\nindex 0\n\ncheckpoint\n",
        ),
    ],
)
def test_proofs_are_written_and_read_as_the_reference_does(proof: InclusionProof, text: str) -> None:
    assert proof.text() == text
    assert parse_proof(text) == proof


@pytest.mark.parametrize(
    "text",
    [
        "wrong-header\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex notanumber\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex -5\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{base64.b64encode(bytes(64)).decode()}\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{'a' * 65 * 1024}\n",
        "c2sp.org/tlog-proof@v1\nindex 00\n\ncheckpoint\n",  # the specification: no leading zeroes
    ],
)
def test_proofs_that_the_reference_refuses_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_proof(text)


def test_the_specifications_own_proof_is_read() -> None:
    # C2SP tlog-proof, the first example; its signatures are shortened there, so that it cannot be verified.
    text = (
        "c2sp.org/tlog-proof@v1\nindex 73894\ngSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n"
        "B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\nEKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\n"
        "RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=\nAHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=\n\n"
        "example.com/fancylog\n109482\nsFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n\n"
        "— example.com/fancylog hI2DJ1roloI=\n"
    )
    proof = parse_proof(text)
    assert isinstance(proof, InclusionProof)
    assert (proof.index, len(proof.path), proof.text()) == (73894, 5, text)
    assert parse_note(proof.checkpoint, [])[0].size == 109482
