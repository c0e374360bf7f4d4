NAME = "my-gru"
