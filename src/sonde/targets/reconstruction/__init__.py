"""An input out of a few numbers (autoencoder, variational autoencoder): compression, and how unusual a record is."""
