raise RuntimeError("the licence of this plugin has run out")
