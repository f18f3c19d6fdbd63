"""What stands on its own once a search is over: a model in a folder, which predicts and is exported."""
