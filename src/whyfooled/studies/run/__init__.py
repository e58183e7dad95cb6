"""How a study is run: in shards, resumed where it stopped, on one machine or many."""
