"""The Wav2Vec2 family."""
