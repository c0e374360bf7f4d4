from harness import declare_framework, declare_implementation

declare_framework("tidal", modules=["tidalflow.core"], extra="tidal")
declare_implementation(
    "tidal-gru", framework="tidal", cells=["gru"], factory="absent_framework:build"
)


def build(spec, cell, device):
    import tidalflow.core

    return tidalflow.core.Network(spec, cell, device)
