from harness import declare_implementation

declare_implementation(
    "my-lstm", framework="torch", cells=["ltsm"], layer="unknown_cell:layer"
)
