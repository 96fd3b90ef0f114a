import json,time
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli import recipes
def test_t(tiny_store,tmp_path,monkeypatch):
    import fmlm_cli.engine.loop as loop
    (tmp_path/"m").mkdir()
    (tmp_path/"m/config.json").write_text(json.dumps(dict(model_type="bert",hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=32,max_position_embeddings=32)))
    import cProfile,pstats
    for i in range(3):
        if i==1: monkeypatch.setattr(loop,"measure_peak",lambda *a,**k:1e9)
        t=time.time()
        s=build(PretrainSettings,nested({"data.store":str(tiny_store),"model.name":str(tmp_path/"m"),"out":str(tmp_path/f"r{i}"),"budget.steps":8,"batch.size":8,"sequence_length":32}))
        p=cProfile.Profile(); 
        r=p.runcall(recipes.pretrain,s)
        print(time.time()-t)
        pstats.Stats(p).sort_stats("cumtime").print_stats(45) if i==2 else None
    print(r.records)
