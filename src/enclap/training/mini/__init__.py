"""The stages that make the bundled model from recordings, each with what it needs, and the run through them."""
