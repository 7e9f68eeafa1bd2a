def probe(problem, seed):
    return ()
