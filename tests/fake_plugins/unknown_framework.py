from harness import declare_implementation

declare_implementation(
    "my-gru", framework="troch", cells=["gru"], layer="unknown_framework:layer"
)
