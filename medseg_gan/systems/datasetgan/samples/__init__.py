"""Generated images and the features behind them."""
