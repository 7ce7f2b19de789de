"""TensorFlow: the facade, its modules, loading and saving; Keras 3 on the TensorFlow backend."""
